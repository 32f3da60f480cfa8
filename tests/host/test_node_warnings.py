"""Warnings of a run stand on its node, too, not only in the server's log."""

import logging
from contextlib import suppress
from importlib import import_module

import pytest
import torch
from clips import cut, index_first, make_clip
from host_stream import PACK, frames, node, patched, prompt
from live_stream_inputs import TinyVAE, pictures, step
from stream_video import INPUTS, Calls, StoppedError, block_clip, translate_video, translated


@pytest.fixture
def shown(pack, monkeypatch):
    """The texts that the nodes show, in order."""
    texts = []
    for name in ("live", "progress", "sampler"):
        module = import_module(f"{PACK}.nodes.{name}")
        monkeypatch.setattr(module, "show_text", lambda _, text: texts.append(text))
    return texts


def ends_at(frame):
    """A prompt that another follows at `frame`."""
    schedule = node("prompts", "Live2DiffPromptSchedule")
    return schedule.execute(prompt(), prompt(5), frame, 0, "keep").args[0]


class OverflowingVAE(TinyVAE):
    """Decodes to NaN."""

    def __init__(self):
        super().__init__()
        self.first_stage_model.decode = lambda latents: torch.full((1, 3, 64, 64), float("nan"))


# Stream Video


def test_damaged_input_stands_on_stream_video(sd15, folders, shown, caplog):
    clip = make_clip(folders, frames=12, size=(64, 64))
    damaged = cut(index_first(clip), 0.6)
    frames_out = translated(damaged, sd15)
    assert 3 <= len(frames_out) < 12
    first, warning, *_ = shown[-1].splitlines()
    assert first.startswith("Frame ") and warning.startswith("Warning: input video: ")
    assert "(at frame" in warning
    # The reader has logged it.
    assert "(at frame" in caplog.text
    assert not [r for r in caplog.records if "input video" in r.message]


def test_a_prompt_that_is_never_reached_stands_on_stream_video(sd15, folders, shown, caplog):
    translate_video(block_clip(folders, range(4)), sd15, positive=ends_at(9))
    assert "Warning: the prompt that starts at frame 9 was never shown" in shown[-1]
    assert caplog.text.count("starts at frame 9 was never shown") == 1


def test_pictures_of_nan_stand_on_stream_video(sd15, folders, shown):
    clip = block_clip(folders, range(2))
    # A run may end by it: its warning is there all the same.
    with suppress(ValueError):
        translate_video(clip, sd15, vae=OverflowingVAE())
    assert "NaN" in shown[-1] and "Warning: " in shown[-1]


def test_a_stopped_run_says_on_its_node_where_its_frames_are(sd15, folders, shown):
    calls, clip = Calls(sd15), block_clip(folders, range(9))
    with calls.stopping_at(7), pytest.raises(StoppedError):
        translate_video(clip, sd15)
    last = shown[-1].splitlines()[-1]
    assert last.startswith("Warning: stopped after ") and "live2diff_partial" in last


def test_without_warnings_nothing_is_added(sd15, folders, shown):
    translate_video(block_clip(folders, range(4)), sd15)
    assert all("Warning" not in text for text in shown)


# Stream Sampler


@torch.inference_mode()
def sample(model, latents, **changes):
    inputs = {"positive": prompt(), "negative": prompt(1), **INPUTS, **changes}
    names = ("positive", "negative", "seed", "steps", "denoise", "cfg")
    node("sampler", "Live2DiffStreamSampler").execute(
        {"samples": latents}, model=model, **{name: inputs[name] for name in names}
    )


def test_a_prompt_that_is_never_reached_stands_on_the_sampler(sd15, shown, caplog):
    sample(sd15, frames(3), positive=ends_at(7))
    assert shown[-1].startswith("Memory: ")
    assert "Warning: the prompt that starts at frame 7 was never shown" in shown[-1]
    assert caplog.text.count("was never shown") == 1


def test_latents_of_nan_stand_on_the_sampler(sd15, shown):
    sd15.set_model_unet_function_wrapper(
        lambda apply, call: apply(call["input"], call["timestep"], **call["c"]) * float("nan")
    )
    with suppress(ValueError):
        sample(sd15, frames(2))
    assert "NaN" in shown[-1]


# Stream Step


@pytest.fixture
def model(sd15, motion, streams):
    return patched(sd15, motion, 4, 2)


def test_two_graphs_with_one_stream_name_are_told(model, vae, shown, caplog):
    """Different seeds: each run throws away the other's stream."""
    images = pictures(1)
    for seed in (3, 4):
        step(images, model, vae, seed=seed)
        assert "Warning" not in shown[-1]
    for times, (before, seed) in enumerate([(4, 3), (3, 4), (4, 3)], 1):
        caplog.clear()
        step(images, model, vae, seed=seed)
        warning = shown[-1].splitlines()[-1]
        assert "'live'" in warning and f"seed {before} -> {seed}" in warning
        assert "different stream names" in warning
        assert ("once" if times == 1 else f"{times} times") in warning
        (said,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
        assert f"seed {before} -> {seed}" in said.message


def test_it_stays_on_the_node_while_that_stream_lives(model, vae, shown):
    for seed in (3, 4, 3):
        step(pictures(1), model, vae, seed=seed)
    step(pictures(3), model, vae)
    assert "different stream names" in shown[-1]
    step(pictures(1), model, vae, stream="other")
    assert "different stream names" not in shown[-1]


def test_two_graphs_whose_prompts_differ_are_told(model, vae, shown):
    for seed in (0, 5, 0):
        step(pictures(1), model, vae, positive=prompt(seed), on_prompt_change="start over")
    assert "because of this: the prompt changed. If two graphs" in shown[-1]


def test_trying_one_setting_after_the_other_is_no_fight(model, vae, shown):
    for seed in range(6):
        step(pictures(1), model, vae, seed=seed)
    assert not any("Warning" in text for text in shown)


def test_a_stream_that_is_let_go_for_another_is_told(model, vae, streams, shown):
    step(pictures(3), model, vae, stream="first")
    size = streams.get("first").nbytes
    step(pictures(1), model, vae, max_total_gb=1.5 * size / 1e9)
    assert "Warning: the live streams first were let go" in shown[-1]
    assert "raise max_total_gb" in shown[-1]


def test_a_prompt_that_is_never_reached_stands_on_stream_step(model, vae, shown):
    step(pictures(3), model, vae, positive=ends_at(7), finish=True)
    assert "Warning: the prompt that starts at frame 7 was never shown" in shown[-1]


def test_pictures_of_nan_stand_on_stream_step(model, streams, shown):
    step(pictures(3, (64, 64)), model, OverflowingVAE())
    assert "Warning: " in shown[-1] and "NaN" in shown[-1]
