"""Settings of the window are checked when they are made."""

import pytest

from live2diff_core.live2diff.window import AttentionMode, AttentionWindow


@pytest.mark.parametrize("warmup", [0, -1, 16, 17])
def test_warmup_must_leave_room(warmup):
    with pytest.raises(ValueError, match=f"warmup_frames is {warmup} and window_size is 16"):
        AttentionWindow(16, warmup)
    AttentionWindow(16, warmup, AttentionMode.CAUSAL)  # which has no warm-up


@pytest.mark.parametrize("mode", AttentionMode)
@pytest.mark.parametrize("size", [0, -3])
def test_window_has_a_frame(mode, size):
    with pytest.raises(ValueError, match=f"window_size is {size}"):
        AttentionWindow(size, 1, mode)


def test_mode_by_name():
    assert AttentionWindow(attention_mode="sliding").attention_mode is AttentionMode.SLIDING
    with pytest.raises(ValueError, match="sideways"):
        AttentionWindow(attention_mode="sideways")


def test_window_fits_the_position_table():
    AttentionWindow(24).check_positions(24)
    with pytest.raises(ValueError, match="window_size is 25.*24 entries.*24 frames or fewer"):
        AttentionWindow(25).check_positions(24)
