"""Sizes that the model takes, without distortion, and the same pixels every time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.video.frame_size import FrameSizeError, plan_frame_size

SIDES = st.integers(8, 2000)


def test_keep_cuts_from_the_middle():
    plan = plan_frame_size(1083, 607, "keep")
    assert plan.scaled == (1083, 607) and plan.crop == (1, 3, 1080, 600)
    image = np.random.default_rng(0).integers(0, 256, (607, 1083, 3), np.uint8)
    assert np.array_equal(plan.apply(image), image[3:603, 1:1081])
    assert str(plan) == "1083x607, cropped to 1080x600"


def test_a_size_that_suits_is_left_alone():
    plan = plan_frame_size(64, 48, "keep")
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    assert plan.source == plan.scaled == plan.size
    assert np.array_equal(plan.apply(image), image)


@pytest.mark.parametrize(
    ("source", "target", "fit", "fill"),
    [
        ((1920, 1080), (512, 512), (512, 288), (512, 512)),
        ((1080, 1920), (512, 512), (288, 512), (512, 512)),
        ((1920, 1080), (960, 540), (960, 536), (960, 536)),
        ((320, 240), (640, 480), (640, 480), (640, 480)),
        ((640, 480), (515, 515), (512, 384), (512, 512)),
        ((24, 24), (8, 8), (8, 8), (8, 8)),
    ],
)
def test_fit_and_fill(source, target, fit, fill):
    assert plan_frame_size(*source, "fit", *target).size == fit
    assert plan_frame_size(*source, "fill", *target).size == fill


@given(SIDES, SIDES, st.sampled_from(["keep", "fit", "fill"]), SIDES, SIDES)
def test_every_plan(width, height, mode, target_width, target_height):
    try:
        plan = plan_frame_size(width, height, mode, target_width, target_height)
    except FrameSizeError:
        # Only a very flat video inside a small target.
        assert (
            mode == "fit" and min(width * target_height / height, height * target_width / width) < 8
        )
        return
    left, top, across, down = plan.crop
    assert across % 8 == down % 8 == 0 and across >= 8 and down >= 8
    assert 0 <= left <= plan.scaled[0] - across and 0 <= top <= plan.scaled[1] - down
    # In the middle, and undistorted up to the rounding of one pixel.
    assert abs(plan.scaled[0] - across - 2 * left) <= 1
    assert abs(plan.scaled[1] - down - 2 * top) <= 1
    scale = plan.scaled[0] / width
    assert abs(plan.scaled[1] - height * scale) <= max(1, height / width)
    if mode == "fit":
        assert across <= target_width and down <= target_height
        assert plan.scaled[0] - across < 8 + 1 or plan.scaled[1] - down < 8 + 1


@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 90), st.integers(8, 90))
def test_scaling_keeps_what_is_seen_where_it_is(width, height, target_width, target_height):
    """A ramp from left to right stays one: the box is where it should be, and no edge is lost."""
    plan = plan_frame_size(width, height, "fill", target_width, target_height)
    ramp = np.linspace(20, 235, width)[None, :, None].repeat(height, 0).repeat(3, 2)
    result = plan.apply(np.round(ramp).astype(np.uint8))
    assert result.shape == (plan.size[1], plan.size[0], 3) and result.dtype == np.uint8
    places = (np.arange(plan.size[0]) + plan.crop[0] + 0.5) * width / plan.scaled[0] - 0.5
    expected = np.interp(places, np.arange(width), ramp[0, :, 0])
    # Lanczos overshoots at the two ends of a ramp.
    assert abs(result[result.shape[0] // 2, :, 0] - expected).max() < 4 + 215 / width
    assert np.array_equal(result, plan.apply(np.round(ramp).astype(np.uint8)))


def test_scaling_down_averages():
    """Fine stripes become grey, not coarse stripes."""
    stripes = np.zeros((64, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    result = plan_frame_size(512, 64, "fit", 64, 8).apply(stripes)
    assert abs(result[:, 4:-4].astype(int) - 127).max() <= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((7, 48, "keep"), "video is 7x48"),
        ((64, 48, "fit", 0, 512), "asked for is 0x512"),
        ((64, 48, "fill", 512, 20_000), "asked for is 512x20000"),
        ((2000, 10, "fit", 64, 64), "The video is 2000x10 pixels; fitted, it is 64x0"),
        ((7, 48, "keep", 0, 0, "/in/clip.mp4"), "/in/clip.mp4 is 7x48"),
        ((2000, 10, "fit", 64, 64, "/in/clip.mp4"), "/in/clip.mp4 is 2000x10 .* it is 64x0"),
        ((64, 48, "stretch", 64, 64), "'stretch'"),
    ],
)
def test_silly_sizes(arguments, message):
    with pytest.raises(FrameSizeError, match=message):
        plan_frame_size(*arguments)


def test_a_frame_of_another_size():
    with pytest.raises(FrameSizeError, match="32x16 came where 64x48"):
        plan_frame_size(64, 48, "keep").apply(np.zeros((16, 32, 3), np.uint8))
