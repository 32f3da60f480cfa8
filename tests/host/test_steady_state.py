"""A steady frame waits for nothing and does what the frame before it did: streams of latents."""

import pytest
import torch
from host_stream import SIZE, Stream, core, frames, prompt, random, translate
from op_log import OpLog
from steady_streams import (
    FILLING,
    FRAMES,
    MEMORIES,
    assert_steady,
    count_calls,
    small_motion,
    small_sd15,
)
from tiny_control import controlled, numbered

ALL = FILLING + FRAMES


@pytest.fixture(scope="module")
def motion(pack):
    return small_motion()


@pytest.fixture
def model(pack):
    return small_sd15()


@torch.inference_mode()
def logged(model, motion, memory="none", **settings):
    """Stream frames, the last of them logged."""
    log, (put, with_depth, _) = OpLog(), MEMORIES[memory]
    count_calls(model, log)
    latents, depths = frames(ALL), frames(ALL, seed=1) if with_depth else [None] * ALL
    pairs = list(zip(latents, depths, strict=True))
    with Stream(put(model, motion), SIZE, ALL, depth=with_depth, **settings) as stream:
        for pair in pairs[:FILLING]:
            stream.session.push(*pair)
        with log.installed():
            for pair in pairs[FILLING:]:
                with log.segment():
                    stream.session.push(*pair)
    # Frames may wait for their group.
    assert len(log.segments) == FRAMES and sum(log.calls) >= FRAMES // 4
    return log


@pytest.mark.parametrize("memory", MEMORIES)
def test_memory(model, motion, memory):
    assert_steady(logged(model, motion, memory), MEMORIES[memory][2])


@pytest.mark.parametrize("guidance", ["full", "self", "initialize"])
@pytest.mark.parametrize("memory", ["none", "causal_warmup-depth", "merge-4", "both"])
def test_guidance(model, motion, memory, guidance):
    log = logged(model, motion, memory, guidance=guidance, cfg=1.6)
    assert_steady(log, MEMORIES[memory][2])


@pytest.mark.parametrize("guidance", ["none", "initialize"])
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("memory", ["causal_warmup-depth", "merge-4"])
def test_denoising_steps(model, motion, memory, steps, guidance):
    log = logged(model, motion, memory, guidance=guidance, cfg=1.6, steps=steps)
    assert_steady(log, MEMORIES[memory][2])


def masks():
    return random(ALL, 64, 80, seed=9).sigmoid()


CONDITIONINGS = {
    "an area": lambda: [*prompt(), *prompt(5, area=(8, 6, 0, 2), strength=1.0)],
    "a window of timesteps": lambda: prompt(start_percent=0.0, end_percent=0.9),
    "a mask per frame": lambda: prompt(mask=masks(), mask_strength=1.0, set_area_to_bounds=False),
    "a ControlNet for all frames": lambda: controlled(numbered(0, 1)),
    "a ControlNet with an image per frame": lambda: controlled(numbered(0, ALL)),
    "a ControlNet for some steps": lambda: controlled(numbered(0, ALL), time_range=(0.0, 0.9)),
}


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_conditionings(model, motion, conditioning):
    log = logged(model, motion, "causal_warmup", positive=CONDITIONINGS[conditioning]())
    assert_steady(log)


UPLOADS = {
    "plain": ({}, (0.0, 1.0)),
    "initialize": ({"guidance": "initialize", "cfg": 1.6}, (0.0, 1.0)),
    "step by step": ({}, (0.0, 0.9)),
}


@pytest.mark.parametrize("case", UPLOADS)
@torch.inference_mode()
def test_each_control_image_goes_to_the_device_once(model, monkeypatch, case):
    """On the CPU that is no operation, so it is counted."""
    (settings, time_range), uploaded = UPLOADS[case], []

    def note(image, device):
        uploaded.append(image)
        return image

    monkeypatch.setattr(core("host.control_hints"), "upload", note)
    positive = controlled(numbered(0, 9), time_range=time_range)
    translate(model, frames(9), positive=positive, steps=3, **settings)
    assert len(uploaded) == 9
