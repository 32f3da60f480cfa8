"""A stream with a feature bank: exact, chunk-invariant, constant in size, a value when saved."""

import pytest
import torch
import toy_stream as toy
from bank_by_hand import SequentialBank
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
from figure1 import translate
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_core.feature_bank.bank import BankConfig
from live2diff_core.stream.call_plan import FeatureSizeError, OpenedShape, PackedIntegers, Pass
from live2diff_core.stream.noise import FrameNoise

TOKENS = toy.SIZE[0] * toy.SIZE[1]


def stream(latents, steps, config, **more):
    opened = session(BankedModel(), steps, config, **more)
    return torch.cat([opened.push_all(latents), opened.flush()])


def one_by_one(model, latents, steps, config):
    """The clip, every frame by itself at every step, with a bank that is shown them in order."""
    banks = {}

    def at_step(x, step):
        x0 = []
        for latent in x:
            out = []
            for number in range(len(model.passes)):
                bank = banks.setdefault(
                    (number, step),
                    SequentialBank(
                        config, lambda frame, count: permutation(frame, step, LAYER, count)
                    ),
                )
                out.append(bank.attend(*model.qkv(latent, number)))
            x0.append(model.mean(latent, torch.stack(out)))
        return torch.stack(x0)

    return translate(latents, toy.schedule(steps), FrameNoise(SEED), at_step)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


# Exact


@every_config
@pytest.mark.parametrize("steps", range(1, 5))
def test_pipelined_is_one_frame_after_the_other(config, steps):
    for count in (1, 2, 11):
        latents = toy.frames(count)
        expected = one_by_one(BankedModel(), latents, steps, config)
        close(stream(latents, steps, config), expected)


@every_config
def test_every_conditioning_has_a_bank_of_its_own(config):
    latents, model = toy.frames(9), BankedModel(conditionings=3)
    opened = session(model, 2, config)
    found = torch.cat([opened.push_all(latents), opened.flush()])
    close(found, one_by_one(model, latents, 2, config))


def test_what_is_compared_depends_on_the_bank():
    latents = toy.frames(9)
    clips = [stream(latents, 2, config) for config in CONFIGS.values()]
    clips.append(stream(latents, 2, BankConfig(interval=1000, fuse=())))
    for index, clip in enumerate(clips):
        assert torch.equal(clip[0], clips[0][0])
        assert all((clip - other).abs().max() > 1e-3 for other in clips[:index])


@every_config
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("warmup, count", [(3, 10), (4, 4), (5, 2)])
def test_frames_denoised_together_are_frames_one_by_one(config, steps, warmup, count):
    """Another memory's warm-up makes groups, the last of them cut short by the clip's end."""
    latents = toy.frames(count)
    opened = session(BankedModel(), steps, config, warmup)
    found = torch.cat([opened.push_all(latents), opened.flush()])
    assert len(opened.model.plans[0].rows) == min(warmup, count)
    close(found, one_by_one(BankedModel(), latents, steps, config))


@every_config
def test_a_call_may_be_split_by_steps(config):
    latents, model = toy.frames(9), BankedModel()
    opened = session(model, 3, config)
    opened.model = lambda x, plan: torch.cat(
        [model(x[rows], part) for rows, part in plan.by_step()]
    )
    close(torch.cat([opened.push_all(latents), opened.flush()]), stream(latents, 3, config))
    assert {len(plan.rows) for plan in model.plans} == {1}


# Cut anywhere, saved anywhere


@every_config
@given(data=st.data())
@settings(deadline=None, max_examples=12)
def test_chunks_and_saves_change_nothing(config, data):
    count, steps = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 4))
    warmup = data.draw(st.sampled_from([0, 3]))
    cuts = sorted(data.draw(st.sets(st.integers(0, count), max_size=4)))
    latents = toy.frames(count)
    opened, parts = session(BankedModel(), steps, config, warmup), []
    for start, stop in zip([0, *cuts], [*cuts, count], strict=True):
        parts.append(opened.push_all(latents[start:stop]))
        state = {name: tensor.clone() for name, tensor in opened.state_dict().items()}
        opened = session(BankedModel(), steps, config, warmup)
        opened.load_state_dict(state)
    found = torch.cat([part for part in parts if len(part)] + [opened.flush()])
    assert torch.equal(found, stream(latents, steps, config, warmup=warmup))


@every_config
def test_a_loaded_stream_shares_nothing_with_the_one_it_comes_from(config):
    """Banks are written in place, so that loading must copy them."""
    latents = toy.frames(12)
    opened = session(BankedModel(), 2, config)
    opened.push_all(latents[:6])
    again = session(BankedModel(), 2, config)
    state = opened.state_dict()
    again.load_state_dict(state)
    before = {name: tensor.clone() for name, tensor in state.items()}
    found = again.push_all(latents[6:])
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert torch.equal(opened.push_all(latents[6:]), found)


@pytest.mark.parametrize(
    "other",
    [
        BankConfig("queue", 2, interval=2),
        BankConfig("queue", 3, interval=3),
        BankConfig("merge", interval=2),
    ],
)
def test_another_bank_is_refused(other):
    opened = session(BankedModel(), 2, CONFIGS["queue"])
    opened.push_all(toy.frames(3))
    with pytest.raises(ValueError, match="bank has another type, size, interval or other levels"):
        session(BankedModel(), 2, other).load_state_dict(opened.state_dict())


def test_a_bank_that_fuses_elsewhere_is_refused():
    """Its features would be missing where they are needed next."""
    opened = session(BankedModel(), 2, BankConfig(interval=2, fuse=()))
    opened.push_all(toy.frames(3))
    again = session(BankedModel(), 2, BankConfig(interval=2))
    with pytest.raises(ValueError, match="or other levels than this MODEL's"):
        again.load_state_dict(opened.state_dict())


def test_a_stream_of_other_memories_is_refused():
    opened = session(BankedModel(), 2, CONFIGS["merge"], warmup=2)
    with pytest.raises(ValueError, match="remembers by bank and motion, this MODEL by bank"):
        session(BankedModel(), 2, CONFIGS["merge"]).load_state_dict(opened.state_dict())


# Calls that fail


@every_config
@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("call", range(1, 12))
def test_an_interrupted_frame_can_be_pushed_again(config, warmup, call):
    latents, model = toy.frames(9), BankedModel()
    opened = session(model, 3, config, warmup)
    model.fail_at = call
    found, failures = [], 0
    while opened.frames_out < len(latents):
        try:
            for latent in latents[opened.frames_in :]:
                found += opened.push(latent)
            for x0 in opened.drain():
                found.append(x0)
        except InterruptedError:
            failures += 1
    assert failures == 1
    assert torch.equal(torch.stack(found), stream(latents, 3, config, warmup=warmup))


@every_config
@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize("call", [1, 2, 3, 5])
def test_an_interrupted_frame_may_be_left_out(config, warmup, call):
    """What it wrote before it failed is seen by no other frame."""
    latents, model = toy.frames(9), BankedModel()
    opened = session(model, 3, config, warmup)
    model.fail_at = call
    found, kept = [], []
    for latent in latents:
        try:
            found += opened.push(latent)
            kept.append(latent)
        except InterruptedError:
            pass
    found = torch.stack([*found, *opened.drain()])
    assert len(kept) == len(latents) - 1
    assert torch.equal(found, stream(torch.stack(kept), 3, config, warmup=warmup))


def test_an_interrupted_call_is_not_saved():
    model = BankedModel()
    opened = session(model, 1, CONFIGS["merge, every frame"])
    opened.push(toy.frames(1)[0])
    before = {name: tensor.clone() for name, tensor in opened.state_dict().items()}
    model.fail_at = 2
    with pytest.raises(InterruptedError):
        opened.push(toy.frames(2)[1])
    after = opened.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


# Size


@every_config
@pytest.mark.parametrize("warmup", [0, 3])
def test_memory_is_constant(config, warmup):
    opened = session(BankedModel(), 3, config, warmup)
    bank = opened.memory[NAME]
    opened.push_all(toy.frames(12))
    held = bank.nbytes
    kinds = 3 if config.fuse else 2
    assert held == 3 * config.frames * kinds * TOKENS * toy.CHANNELS * 4
    for latent in toy.frames(60, seed=1):
        opened.push(latent)
        assert bank.nbytes == held
    opened.reset()
    assert bank.nbytes == held
    assert list(bank.state_dict()) == ["settings"]


# Rows


def test_rows_exist_for_frames_only():
    """While the pipeline fills and drains, the steps without a frame neither read nor write."""
    model, met = BankedModel(), []
    opened = session(model, 3, BankConfig(interval=1, **USE))
    banks = opened.memory[NAME]

    def steps_held():
        names = [name.split("/") for name in banks.state_dict() if name != "settings"]
        return {int(name[2]) for name in names}

    for latent in toy.frames(4):
        opened.push(latent)
        met.append((len(model.plans[-1].rows), steps_held()))
    assert met == [(1, {0}), (2, {0, 1}), (3, {0, 1, 2}), (3, {0, 1, 2})]
    before = {name: tensor.clone() for name, tensor in banks.state_dict().items()}
    opened.flush()
    assert [len(plan.rows) for plan in model.plans[-2:]] == [2, 1]
    after = banks.state_dict()
    changed = {name.split("/")[2] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"1", "2"}


def take_in(memory, frame, tokens, step=0):
    """One frame of `tokens` at one step, taken in."""
    memory.open(OpenedShape((("positive.0", toy.SIZE),), torch.device("cpu"), torch.float32))
    groups, steps = [range(frame, frame + 1)], range(step, step + 1)
    packed = PackedIntegers(torch.tensor(memory.integers(groups, steps)))
    planned = memory.plan(groups, steps, packed)
    own = torch.randn(1, tokens, 4, generator=torch.Generator().manual_seed(frame))
    meetings = planned.update(0, [Pass(0, 0)], own, own)
    memory.commit()
    return meetings


@pytest.mark.parametrize("sizes", [(16, 4), (4, 16), (6, 4)])
@pytest.mark.parametrize(
    "config", [BankConfig(interval=1, fuse=()), BankConfig("queue", 4, interval=1, fuse=())]
)
@pytest.mark.parametrize("before", [1, 4])
def test_features_that_change_size_are_refused(config, sizes, before):
    memory = bank_memory(config, 1, permutation)
    for frame in range(before):
        take_in(memory, frame, sizes[0])
    with pytest.raises(FeatureSizeError, match=f"changed to {sizes[1]} pixels.*feature bank: rem"):
        take_in(memory, before, sizes[1])


def test_a_loaded_bank_follows_the_model():
    config = BankConfig(interval=2, fuse=())
    memory, loaded = (bank_memory(config, 1, permutation) for _ in range(2))
    take_in(memory, 0, 6)
    state = {k: v.double() if v.is_floating_point() else v for k, v in memory.state_dict().items()}
    loaded.load_state_dict(state)
    (meeting,) = take_in(loaded, 1, 6)
    assert meeting.keys.dtype is torch.float32
    assert loaded.nbytes == memory.nbytes
