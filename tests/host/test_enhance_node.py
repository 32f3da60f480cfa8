"""Enhance Video inside ComfyUI's process, on a stand-in: run, stopped, resumed, refused."""

import pytest
import torch
from host_stream import node
from long_videos import StoppedError, forget, pictures, shown, text, times


@pytest.mark.parametrize("count", [1, 5])
def test_every_frame_is_enhanced_at_its_time(videos, folders, count):
    original = pictures(count, size=64)
    enhanced = videos.enhance(images=original)
    assert shown(enhanced).shape == (count, 64, 64, 3)
    assert times(enhanced) == pytest.approx([index / 8 for index in range(count)])


def test_a_frame_is_fitted_into_the_canvas(videos, folders):
    wide = torch.nn.functional.pad(pictures(3), (0, 0, 0, 64))
    assert shown(videos.enhance(images=wide)).shape == (3, 32, 64, 3)


@pytest.mark.parametrize(
    "stop, blending",
    [(2, "x0 (published code)"), (6, "latents (paper)"), (11, "x0 (published code)")],
)
def test_an_enhancement_that_was_stopped_goes_on_to_the_same_frames(
    videos, folders, stop, blending
):
    original = pictures(10)
    with videos.stopping_at(None):
        whole = shown(videos.enhance(images=original, blending=blending))
        calls = videos.calls
    # Four chunks in three steps.
    assert calls == 12
    forget(folders)
    with videos.stopping_at(stop), pytest.raises(StoppedError):
        videos.enhance(images=original, blending=blending)
    with videos.stopping_at(None):
        assert (shown(videos.enhance(images=original, blending=blending)) == whole).all()
        assert videos.calls < calls or stop < 3


def test_video_and_pictures_are_one_or_the_other(videos, folders):
    for given in ({}, {"images": pictures(2), "video": object()}):
        with pytest.raises(ValueError, match="video or images"):
            videos.enhance(**given)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"width": 72}, "multiple of 64"),
        ({"height": 64}, "80, 144"),
        ({"overlap": 3}, "1 to 2 frames"),
        ({"positive": text(1, width=768)}, "OpenCLIP-H"),
    ],
)
def test_wrong_enhancer_settings_are_refused(videos, folders, change, message):
    with pytest.raises(ValueError, match=message):
        videos.enhance(images=pictures(2), **change)


def test_a_schedule_is_refused_by_the_enhancer(videos, folders):
    schedule = node("prompts", "Live2DiffPromptSchedule").execute
    changed = schedule(text(1), text(9), 20, 0, "keep").args[0]
    with pytest.raises(ValueError, match="one text"):
        videos.enhance(images=pictures(2), positive=changed)
