"""A frame that becomes NaN is lost by itself: those behind it are finite, and states are clean."""

import math

import pytest
import torch
from host_bank import banked
from host_stream import SIZE, Stream, core, frames, patched, relative_error, translate
from lost_frames import Rows, assert_clean, spoilt, still

COUNT = 14
MEMORIES = {
    "none": lambda model, motion: model,
    "motion": lambda model, motion: patched(model, motion, 5, 2),
    "causal": lambda model, motion: patched(model, motion, 4, mode="causal"),
    "bank": lambda model, motion: banked(model, interval=1),
    "queue": lambda model, motion: banked(model, kind="queue", interval=1),
    "both": lambda model, motion: banked(patched(model, motion, 5, 2), interval=1),
}


@torch.inference_mode()
def run(model, latents, depth=None, **settings):
    """Push a clip and drain it: (x0 [F, ...], faults); the state is looked at after every frame."""
    hints = [None] * len(latents) if depth is None else depth
    found, faults = [], []
    with Stream(model, SIZE, len(latents), depth=depth is not None, **settings) as stream:
        session = stream.session
        for pair in zip(latents, hints, strict=True):
            found += session.push(*pair)
            faults += session.faults
            assert_clean(session.state_dict())
        for x0 in session.drain():
            found.append(x0)
            faults += session.faults
    return torch.stack(found), [int(fault) for fault in faults]


def places():
    return core("stream.faults")


def unet_layers(model, motion):
    """Layers early and late, inside the memories' hooks and out."""
    unet = model.model.diffusion_model
    attention = unet.middle_block[1].transformer_blocks[0].attn1
    module = motion.model.up_blocks[1].motion_modules[0].temporal_transformer
    temporal = module.transformer_blocks[0].attention_blocks[0]
    return {
        "first": unet.input_blocks[0][0],
        "middle": unet.middle_block[0],
        "bank's keys": attention.to_k,
        "bank's values": attention.to_v,
        "cache's keys": temporal.to_k,
        "cache's values": temporal.to_v,
    }


LAYERS = ("first", "middle", "bank's keys", "bank's values")
CASES = [(memory, layer) for memory in MEMORIES for layer in LAYERS]
CASES += [
    (memory, f"cache's {part}") for memory in ("motion", "both") for part in ("keys", "values")
]


@pytest.mark.parametrize("memory, layer", CASES)
def test_one_overflow_in_the_unet_costs_one_frame(sd15, motion, memory, layer):
    rows = Rows(sd15, [7])
    layers, latents = unet_layers(sd15, motion), frames(COUNT)
    with spoilt(layers[layer], rows):
        found, faults = run(MEMORIES[memory](sd15, motion), latents)
    assert found.isfinite().all()
    assert [n for n, fault in enumerate(faults) if fault] == [7] and still(found) == [7]
    assert faults[7] == places().MODEL
    whole = translate(MEMORIES[memory](sd15, motion), latents)
    assert relative_error(found[:7], whole[:7]) == 0
    if memory == "none":
        assert relative_error(found[8:], whole[8:]) == 0
    # What a lost frame leaves is hidden, so that those behind it are nearly what they would be.
    assert (found[8:] - whole[8:]).abs().mean() < whole.abs().mean()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("memory", ["motion", "both"])
def test_a_frame_of_the_warm_up_is_lost_alone(sd15, motion, memory, value):
    rows = Rows(sd15, [1])
    with spoilt(sd15.model.diffusion_model.input_blocks[1][0], rows, value):
        found, faults = run(MEMORIES[memory](sd15, motion), frames(COUNT))
    assert found.isfinite().all() and [n for n, f in enumerate(faults) if f] == [1]
    assert still(found) == [1]


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_stream_may_begin_with_a_lost_frame(sd15, motion, memory):
    rows = Rows(sd15, [0])
    with spoilt(sd15.model.diffusion_model.input_blocks[1][0], rows):
        found, faults = run(MEMORIES[memory](sd15, motion), frames(COUNT))
    assert found.isfinite().all() and [n for n, f in enumerate(faults) if f] == [0]
    assert not found[0].any() and not still(found)


@pytest.mark.parametrize("guidance", ["full", "self", "initialize"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_every_guidance_and_step(sd15, motion, guidance, step):
    rows = Rows(sd15, [6], [step])
    model = MEMORIES["both"](sd15, motion)
    with spoilt(sd15.model.diffusion_model.middle_block[0], rows):
        found, faults = run(model, frames(COUNT), guidance=guidance, cfg=1.6, steps=3)
    assert found.isfinite().all() and [n for n, f in enumerate(faults) if f] == [6]
    assert still(found) == [6]


@pytest.mark.parametrize("memory", ["none", "motion", "both"])
@pytest.mark.parametrize("which", ["latent", "depth"])
def test_what_enters_may_be_lost(sd15, motion, memory, which):
    if memory == "none" and which == "depth":
        pytest.skip("only a motion module reads depth")
    latents, depth = frames(COUNT), frames(COUNT, seed=1) if memory != "none" else None
    ({"latent": latents, "depth": depth}[which])[7, 2, 3, 4] = math.inf
    found, faults = run(MEMORIES[memory](sd15, motion), latents, depth)
    assert found.isfinite().all() and still(found) == [7]
    assert [n for n, f in enumerate(faults) if f] == [7] and faults[7] == places().ENCODE


@torch.inference_mode()
def test_the_slot_of_a_lost_frame_is_as_good_as_empty(sd15, motion):
    """Whatever is in it, once it is marked."""
    rows, found = Rows(sd15, [6]), []
    model, latents = MEMORIES["causal"](sd15, motion), frames(COUNT)
    for litter in (0.0, 50.0):
        parts = []
        with (
            spoilt(sd15.model.diffusion_model.middle_block[0], rows),
            Stream(model, SIZE, COUNT, steps=1) as stream,
        ):
            for index, latent in enumerate(latents):
                parts += stream.session.push(latent)
                if index == 6:
                    for name, tensor in stream.session.state_dict().items():
                        if name.endswith("_by_head"):
                            tensor[:, :, :, 6 % 4] = litter
        found.append(torch.stack(parts))
    assert torch.equal(*found) and found[0].isfinite().all()


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["merge", "queue"])
def test_nan_inside_a_bank_is_gone_with_its_next_update(sd15, kind):
    model, latents = banked(sd15, kind=kind, interval=2), frames(COUNT)
    found, faults = [], []
    with Stream(model, SIZE, COUNT, steps=1) as stream:
        for index, latent in enumerate(latents):
            if index == 5:
                for name, tensor in stream.session.state_dict().items():
                    if name.endswith(("/keys", "/values", "/features")):
                        tensor[1, 2] = math.nan
            found += stream.session.push(latent)
            faults += stream.session.faults
    lost = [n for n, fault in enumerate(faults) if fault]
    assert torch.stack(found).isfinite().all() and lost and lost[0] == 5 and lost[-1] <= 6
    assert_clean(stream.session.state_dict())


@torch.inference_mode()
@pytest.mark.parametrize("memory", ["motion", "both"])
def test_a_saved_stream_goes_on_alike(sd15, motion, memory):
    """The slots that are hidden, and the fault of a frame in flight, are in the state."""
    rows = Rows(sd15, [7], [0])
    model, latents = MEMORIES[memory](sd15, motion), frames(COUNT)
    with spoilt(sd15.model.diffusion_model.middle_block[0], rows):
        whole, expected = run(model, latents, steps=3)
        with Stream(model, SIZE, COUNT, steps=3) as stream:
            found = list(stream.session.push_all(latents[:8]))
            state = {name: tensor.clone() for name, tensor in stream.session.state_dict().items()}
        with Stream(model, SIZE, COUNT, steps=3) as stream:
            stream.session.load_state_dict(state)
            faults = []
            for latent in latents[8:]:
                found += stream.session.push(latent)
                faults += stream.session.faults
            found += stream.session.drain()
    assert torch.equal(torch.stack(found), whole) and faults[:3] == expected[6:9]
    assert expected[7] == places().MODEL


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["merge", "queue"])
def test_a_bank_keeps_what_it_had_before_a_lost_frame(sd15, kind):
    """Even where the frame's keys were still finite; a queue of one frame gets that one twice."""
    rows = Rows(sd15, [1, 6])
    model, latents, banks = banked(sd15, kind=kind, interval=1), frames(8), []
    with (
        # Behind all banks.
        spoilt(sd15.model.diffusion_model.out[2], rows),
        Stream(model, SIZE, 8, steps=1) as stream,
    ):
        for latent in latents:
            stream.session.push(latent)
            state = stream.session.state_dict()
            banks.append({k: t.clone() for k, t in state.items() if k.endswith(("keys", "values"))})
    for before, after, same in ((0, 1, True), (5, 6, True), (6, 7, False)):
        pairs = [(banks[before][name], bank) for name, bank in banks[after].items()]
        held = [torch.equal(new[-len(old) :], old) for old, new in pairs]
        assert pairs and held == [same] * len(pairs)
