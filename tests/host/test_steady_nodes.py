"""A steady frame waits for nothing and does what the frame before it did: the stream nodes.

Stream Step opens and closes its models in every run, which is the host's work; what is logged is
what lies between the push of the run's frames and its end.
"""

from contextlib import contextmanager

import pytest
import torch
from host_stream import PACK, SIZE, core, frames, node, prompt, random
from live_stream_inputs import TinyDepth, pictures, step
from op_log import OpLog
from steady_streams import (
    FILLING,
    FRAMES,
    MEMORIES,
    assert_steady,
    count_calls,
    cut_at_calls,
    small_motion,
    small_sd15,
)
from stream_video import block_clip, translated
from tiny_control import controlled, numbered

ALL = FILLING + FRAMES + 4
PIXELS = (SIZE[0] * 8, SIZE[1] * 8)
pytestmark = pytest.mark.usefixtures("folders", "streams")


@pytest.fixture(scope="module")
def motion(pack):
    return small_motion()


@pytest.fixture
def model(pack):
    return small_sd15()


def guided(mode):
    options = node("options", "Live2DiffStreamOptions")
    return {"cfg": 1.6, "options": options.execute(mode, 0.8, "fresh per frame", "lcm").args[0]}


def filtered():
    skip = node("options", "Live2DiffSimilarFrameFilter")
    return {"frame_filter": skip.execute(0.9, 10).args[0]}


def scheduled():
    """A change of the prompt that is over before the log begins, and one after its end."""
    follow = node("prompts", "Live2DiffPromptSchedule").execute
    first = follow(prompt(), prompt(5), 2, 1, "keep").args[0]
    return {"positive": follow(first, prompt(3), 10 * ALL, 0, "reset").args[0]}


def controlled_frames():
    return {"positive": controlled(numbered(0, ALL, PIXELS))}


def masked_frames():
    masks = random(ALL, *PIXELS, seed=9).sigmoid()
    return {"positive": prompt(mask=masks, mask_strength=1.0, set_area_to_bounds=False)}


# By name: (memory, what makes the inputs beside the usual ones, calls of the UNet per frame).
SETTINGS = {
    "plain": ("none", dict, 1),
    "live2diff": ("causal_warmup", dict, 1),
    "merge": ("merge-4", dict, 1),
    "both": ("both", dict, 1),
    "guidance full": ("causal_warmup", lambda: guided("full"), 1),
    "guidance self": ("none", lambda: guided("self"), 1),
    "guidance initialize": ("causal_warmup", lambda: guided("initialize"), 2),
    "similar frames": ("causal_warmup", filtered, 1),
    "prompt schedule": ("causal_warmup", scheduled, 1),
    "control per frame": ("causal_warmup", controlled_frames, 1),
    "mask per frame": ("none", masked_frames, 1),
}
# A video has no known length, and a live stream takes one picture per run.
FOR_ALL_NODES = [name for name in SETTINGS if not name.endswith("per frame")]


@torch.inference_mode()
def sample(model, **inputs):
    """Stream Sampler on latents, with depth latents where the memory reads them."""
    usual = {"seed": 3, "steps": 4, "denoise": 0.5, "cfg": 1.0, "positive": prompt()}
    sampler = node("sampler", "Live2DiffStreamSampler")
    usual |= {"model": model, "negative": prompt(1), "frames": {"samples": frames(ALL)}}
    sampler.execute(**{**usual, **inputs})


@pytest.mark.parametrize("setting", SETTINGS)
def test_sampler(model, motion, setting):
    memory, more, calls = SETTINGS[setting]
    put, with_depth, period = MEMORIES[memory]
    depth = {"depth": {"samples": frames(ALL, seed=1)}} if with_depth else {}
    log = OpLog()
    cut_at_calls(model, log, calls)
    with log.installed():
        sample(put(model, motion), **depth, **more())
    assert len(log.segments) == FRAMES
    assert_steady(log, period)


@pytest.mark.parametrize("setting", FOR_ALL_NODES)
def test_video(model, motion, folders, monkeypatch, setting):
    # Twice a second is sooner or later between the frames; here after each.
    monkeypatch.setattr(f"{PACK}.nodes.progress.PREVIEW_SECONDS", 0.0)
    memory, more, calls = SETTINGS[setting]
    put, with_depth, period = MEMORIES[memory]
    depth = {"depth_model": TinyDepth()} if with_depth else {}
    log = OpLog()
    cut_at_calls(model, log, calls)
    clip = block_clip(folders, range(ALL))
    with log.installed():
        translated(clip, put(model, motion), checkpoint_every=0, **depth, **more())
    assert len(log.segments) == FRAMES
    assert_steady(log, period)


@contextmanager
def pushes_logged(monkeypatch, log):
    """Cut the log where a run pushes its frames, and pause it behind that."""
    live = core("run.live").LiveStream
    push, count = live.push, 0

    def watched(self, *args, **kwargs):
        nonlocal count
        count += 1
        if count <= FILLING:
            return push(self, *args, **kwargs)
        with log.segment():
            return push(self, *args, **kwargs)

    with monkeypatch.context() as patch, log.installed():
        patch.setattr(live, "push", watched)
        yield


def control_of(frame):
    return {"positive": controlled(numbered(frame, 1, PIXELS))}


STEP_SETTINGS = {**SETTINGS, "control per frame": ("causal_warmup", control_of, 1)}


@pytest.mark.parametrize("setting", [*FOR_ALL_NODES, "control per frame"])
def test_step_with_a_frame_per_run(model, motion, vae, monkeypatch, setting):
    memory, more, _ = STEP_SETTINGS[setting]
    put, with_depth, period = MEMORIES[memory]
    inputs = {"depth_model": TinyDepth()} if with_depth else {}
    log = OpLog()
    count_calls(model, log)
    carrying = put(model, motion)
    inputs |= {} if more is control_of else more()
    with pushes_logged(monkeypatch, log):
        for frame, image in enumerate(pictures(FILLING + FRAMES, PIXELS)):
            inputs |= more(frame) if more is control_of else {}
            step(image[None], carrying, vae, **inputs)
    assert len(log.segments) == FRAMES
    assert_steady(log, period)


@pytest.mark.parametrize("setting", ["plain", "both", "similar frames", "guidance initialize"])
def test_step_with_many_frames_in_a_run(model, motion, vae, setting):
    memory, more, calls = SETTINGS[setting]
    put, with_depth, period = MEMORIES[memory]
    inputs = {**more(), **({"depth_model": TinyDepth()} if with_depth else {})}
    log = OpLog()
    cut_at_calls(model, log, calls)
    with log.installed():
        step(pictures(ALL, PIXELS), put(model, motion), vae, **inputs)
    assert len(log.segments) == FRAMES
    assert_steady(log, period)
