"""A feature bank's steady state: allocated once, by index, with nothing read back or built anew."""

import threading

import pytest
import torch
import toy_stream as toy
from banked_model import (
    CONFIGS,
    LAYER,
    NAME,
    SEED,
    USE,
    BankedModel,
    bank_memory,
    every_config,
    permutation,
    session,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from live2diff_core.feature_bank.bank import BankConfig, BankedLayer
from live2diff_core.feature_bank.call import attend_with_banks
from live2diff_core.feature_bank.memory import BankMemory
from live2diff_core.feature_bank.token_orders import Order
from live2diff_core.stream.call_plan import (
    FeatureSizeError,
    OpenedShape,
    PackedIntegers,
    Pass,
)
from live2diff_core.stream.made_ahead import THREAD, MadeAhead
from live2diff_core.stream.noise import TokenPermutation

TOKENS = toy.SIZE[0] * toy.SIZE[1]
CPU = torch.device("cpu")
ONE = OpenedShape((("positive.0", toy.SIZE),), CPU, torch.float32)
# What waits for the device.
REFUSED = {"item", "_local_scalar_dense", "is_nonzero", "equal", "nonzero"}


class Operations(TorchDispatchMode):
    """Lists (operation, shapes, types) of all operations of this thread."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, result)) if isinstance(t, torch.Tensor)]
        sizes = tuple((tuple(t.shape), t.dtype) for t in tensors)
        self.done.append((func.overloadpacket.__name__, sizes))
        return result


def steady(config, steps, conditionings=1):
    """A stream whose banks are full, and its bank."""
    opened = session(BankedModel(conditionings), steps, config)
    opened.push_all(toy.frames(config.frames * config.interval + steps + 1))
    return opened, opened.memory[NAME]


def tensors_of(memory):
    """All banks' own tensors."""
    return [t for banks in memory.banks._all() for t in banks._tensors.values()]


# Operations


@every_config
@pytest.mark.parametrize("steps, conditionings", [(1, 1), (3, 1), (4, 2)])
def test_every_interval_does_what_the_one_before_did(config, steps, conditionings):
    opened, _ = steady(config, steps, conditionings)
    done = []
    for latent in toy.frames(20, seed=1):
        with Operations() as operations:
            opened.push(latent)
        done.append(operations.done)
    assert all(done)
    for frame, operations in enumerate(done[config.interval :]):
        assert operations == done[frame]


@every_config
def test_a_call_waits_for_nothing_and_builds_nothing_from_lists(config):
    """One packed tensor of integers is made per call."""
    opened, _ = steady(config, 3, 2)
    for latent in toy.frames(12, seed=1):
        with Operations() as operations:
            opened.push(latent)
        names = [name for name, _ in operations.done]
        assert names.count("lift_fresh") <= 1
        assert not {*names} & REFUSED
        indexed = [sizes for name, sizes in operations.done if name.startswith("index")]
        assert torch.bool not in {dtype for sizes in indexed for _, dtype in sizes}


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_rows_whose_banks_are_full_are_extended_and_fused_together(rows):
    """As many operations for many rows as for one, where none enters its bank."""
    opened, memory = steady(BankConfig(interval=1000, **USE), rows)
    keys, counts = own(TOKENS, rows), []
    for groups in ([range(5, 6)] * rows, [range(5, 6)]):
        steps = range(len(groups))
        call = memory.plan(groups, steps, PackedIntegers(torch.zeros(0)))
        frames = keys[: len(groups)]
        with Operations() as operations:
            meetings = call.update(0, [Pass(0, 0)], frames, frames)
            out = attend_with_banks(frames, frames, frames, meetings, opened.model.attend)
            call.fuse(0, out)
        counts.append(len([name for name, _ in operations.done if name != "slice"]))
    assert len(meetings) == 1
    assert counts[0] == counts[1]


# Allocation


@every_config
def test_banks_are_allocated_when_the_stream_opens_and_never_again(config):
    opened = session(BankedModel(2), 3, config)
    memory = opened.memory[NAME]
    held = memory.nbytes
    before = [tensor.data_ptr() for tensor in tensors_of(memory)]
    kinds = 3 if config.fuse else 2
    assert held == 2 * 3 * config.frames * kinds * TOKENS * toy.CHANNELS * 4
    opened.push_all(toy.frames(12))
    opened.reset()
    opened.push_all(toy.frames(12, seed=1))
    opened.session.open(opened.model)
    assert [tensor.data_ptr() for tensor in tensors_of(memory)] == before
    assert memory.nbytes == held


def call_of(memory, frame, steps=1):
    groups = [range(frame, frame + 1)] * steps
    return memory.plan(groups, range(steps), PackedIntegers(torch.zeros(0, dtype=torch.long)))


def own(tokens, rows=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, tokens, toy.CHANNELS, generator=generator)


def test_a_guidance_nodes_pass_is_allocated_at_its_first_use():
    memory = bank_memory(BankConfig(interval=1, fuse=()), 2, permutation)
    memory.open(ONE)
    held = memory.nbytes
    call = call_of(memory, 0, 2)
    call.update(0, [Pass(0, 0)], own(TOKENS, 2), own(TOKENS, 2))
    memory.commit()
    assert memory.nbytes == held
    call.update(0, [Pass(0, 1)], own(TOKENS, 2), own(TOKENS, 2))
    memory.commit()
    assert memory.nbytes == 2 * held
    names = {name.split("/")[0] for name in memory.state_dict() if "/" in name}
    assert names == {"positive.0.pass0", "positive.0.pass1"}


def test_of_a_guidance_nodes_pass_only_the_attentions_that_run_are_allocated():
    layers = [BankedLayer(name, 0, toy.CHANNELS, False) for name in ("up.3.0", "up.4.0")]
    memory = BankMemory(BankConfig(interval=1), permutation, layers, {"positive": 1})
    memory.open(ONE)
    held = memory.nbytes
    for _ in range(2):
        call_of(memory, 0).update(1, [Pass(0, 1)], own(TOKENS), own(TOKENS))
        memory.commit()
        assert memory.nbytes == held + held // 2


def test_what_a_failed_call_took_in_is_gone():
    """Also when the next call has fewer rows, and so does not write over it."""
    _, memory = steady(CONFIGS["merge, every frame"], 3)
    held, before = memory.nbytes, {k: t.clone() for k, t in memory.state_dict().items()}
    call = call_of(memory, 9, 3)
    call.update(0, [Pass(0, 0)], own(TOKENS, 3), own(TOKENS, 3))
    assert memory.nbytes > held
    memory.discard()
    memory.commit()
    assert memory.nbytes == held
    assert all(torch.equal(tensor, before[k]) for k, tensor in memory.state_dict().items())


@pytest.mark.parametrize("kind", ["merge", "queue"])
def test_features_smaller_than_computed_are_allocated_anew_before_anything_is_written(kind):
    """A node may shrink them at all steps, in a stream that is resumed, too."""
    config = BankConfig(kind, 2, interval=1, fuse=())
    memory = bank_memory(config, 1, permutation)
    memory.open(ONE)
    held = memory.nbytes
    for frame in range(2):
        call_of(memory, frame).update(0, [Pass(0, 0)], own(TOKENS // 2), own(TOKENS // 2))
        memory.commit()
    assert memory.nbytes == held // 2
    loaded = bank_memory(config, 1, permutation)
    loaded.load_state_dict(memory.state_dict())
    loaded.open(ONE)
    (meeting,) = call_of(loaded, 2).update(0, [Pass(0, 0)], own(TOKENS // 2), own(TOKENS // 2))
    loaded.commit()
    assert (meeting.tokens, meeting.banks.tokens) == (config.frames * TOKENS // 2, TOKENS // 2)
    assert loaded.nbytes == held // 2
    with pytest.raises(FeatureSizeError):
        call_of(loaded, 3).update(0, [Pass(0, 0)], own(TOKENS), own(TOKENS))


def test_a_size_that_changes_between_the_steps_of_one_frame_is_refused():
    memory = bank_memory(BankConfig(interval=1, fuse=()), 2, permutation)
    memory.open(ONE)
    call = call_of(memory, 0, 2)
    call.select(0).update(0, [Pass(0, 0)], own(TOKENS), own(TOKENS))
    with pytest.raises(FeatureSizeError):
        call.select(1).update(0, [Pass(0, 0)], own(TOKENS // 2), own(TOKENS // 2))


def test_a_state_may_be_loaded_before_or_after_opening():
    opened, memory = steady(CONFIGS["queue"], 2)
    state = memory.state_dict()
    kept = {name: tensor.clone() for name, tensor in state.items()}
    loaded = [bank_memory(memory.config, 2, permutation) for _ in range(2)]
    loaded[0].open(ONE)
    for each in loaded:
        each.load_state_dict(state)
        assert each.state_dict().keys() == kept.keys()
        each.open(ONE)
    opened.push_all(toy.frames(8, seed=1))
    for each in loaded:
        assert each.nbytes == memory.nbytes
        assert all(torch.equal(each.state_dict()[name], kept[name]) for name in kept)


@every_config
def test_a_stream_that_moved_away_and_back_goes_on(config):
    latents = toy.frames(9, seed=1)
    one, other = (steady(config, 3)[0] for _ in range(2))
    for index, latent in enumerate(latents):
        if index in (1, 4):
            other.memory[NAME].to(CPU)
            assert other.memory[NAME].nbytes > 0
            other.session.open(other.model)
        found, expected = other.push(latent), one.push(latent)
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


# Orders of tokens


class Uploads:
    """Counts what MadeAhead hands out."""

    def __init__(self, monkeypatch):
        self.sizes, take = [], MadeAhead.take

        def counted(ahead, key, device):
            tensor = take(ahead, key, device)
            if tensor.dtype is torch.int64:
                self.sizes.append(tensor.numel())
            return tensor

        monkeypatch.setattr(MadeAhead, "take", counted)


def test_orders_go_to_the_device_once_in_a_call_that_merges(monkeypatch):
    """Frames 0, 2, 4 are merged: in a call of three rows, two of them or one."""
    opened, _ = steady(CONFIGS["merge"], 3)
    uploads = Uploads(monkeypatch)
    sizes = []
    for latent in toy.frames(6):
        uploads.sizes.clear()
        opened.push(latent)
        sizes.append(uploads.sizes[:])
    assert sorted(map(str, sizes)) == sorted([f"[{n * 2 * TOKENS}]" for n in (1, 2)] * 3)
    opened, _ = steady(BankConfig(interval=7, **USE), 1)
    uploads.sizes.clear()
    for latent in toy.frames(6):
        opened.push(latent)
    assert len(uploads.sizes) <= 1


def test_orders_are_drawn_on_the_thread_that_draws_ahead():
    drawn = []

    def noted(frame, step, layer, count):
        drawn.append((frame, step, threading.current_thread().name))
        return TokenPermutation(SEED)(frame, step, layer, count)

    opened = session(BankedModel(), 3, CONFIGS["merge"])
    opened.memory[NAME].orders.permutation = noted
    opened.push_all(toy.frames(6))
    drawn.clear()
    opened.push_all(toy.frames(10))
    assert {name.split("_")[0] for _, _, name in drawn} == {THREAD}
    assert len({(frame, step) for frame, step, _ in drawn}) == len(drawn)


def test_an_order_that_no_call_foresaw_is_drawn_when_it_is_needed():
    memory = bank_memory(BankConfig(interval=2), 1, permutation)
    memory.open(ONE)
    orders = call_of(memory, 2).orders
    for tokens in (2 * TOKENS, 7):
        expected = permutation(2, 0, LAYER, tokens)
        assert torch.equal(orders.of(Order(2, 0, 0, tokens)), expected)


# Training


@pytest.mark.parametrize("together", [False, True])
@every_config
def test_attention_is_differentiable_also_after_the_banks_are_written(config, together):
    """Gradients stay within a call; what is in a bank already has none."""
    opened, memory = steady(config, 1)
    frames = range(2 * config.interval * 5, 2 * config.interval * 5 + (3 if together else 1))
    packed = PackedIntegers(torch.zeros(0, dtype=torch.long))
    call = memory.plan([frames], range(1), packed)
    inputs = [own(TOKENS, len(frames), seed).requires_grad_() for seed in range(3)]
    meetings = call.update(0, [Pass(0, 0)], *inputs[1:])
    out = call.fuse(0, attend_with_banks(*inputs, meetings, opened.model.attend))
    memory.commit()
    out.square().sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in inputs)
    assert not any(tensor.requires_grad for tensor in tensors_of(memory))


# A pretended device


@every_config
def test_a_bank_lives_on_the_models_device(config):
    with FakeTensorMode(allow_non_fake_inputs=True):
        memory = bank_memory(config, 2, permutation)
        cuda = torch.device("cuda")
        memory.open(OpenedShape((("positive.0", toy.SIZE),), cuda, torch.float16))
        for frame in range(2 * config.frames * config.interval + 2):
            integers = PackedIntegers(torch.zeros(0, dtype=torch.long, device=cuda))
            call = memory.plan([range(frame, frame + 1)] * 2, range(2), integers)
            two = torch.randn(2, TOKENS, toy.CHANNELS, device=cuda, dtype=torch.float16)
            (meeting,) = call.update(0, [Pass(0, 0)], two, two)
            fused = call.fuse(0, two)
            assert (fused.device.type, fused.dtype) == ("cuda", torch.float16)
            memory.commit()
        assert meeting.tokens == config.frames * TOKENS
        assert {t.device.type for t in tensors_of(memory)} == {"cuda"}
