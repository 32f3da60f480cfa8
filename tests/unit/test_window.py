"""The attention window, played through frame by frame, against figure 1 of the paper."""

import figure1
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_core.live2diff.window import AttentionMode, AttentionWindow


@st.composite
def configs(draw):
    mode = draw(st.sampled_from(AttentionMode))
    size = draw(st.integers(1 + (mode is AttentionMode.CAUSAL_WARMUP), 24))
    return AttentionWindow(size, draw(st.integers(1, max(1, size - 1))), mode)


def play(config, frames):
    """Yield (group, row, frame in every slot) as a stream of `frames` frames runs."""
    window = config
    held = {}
    frame = 0
    while frame < frames:
        whole = window.group(frame)
        assert all(window.group(member) == whole for member in whole)
        assert whole.start == frame, "groups follow each other without gaps"
        group = range(frame, min(whole.stop, frames))
        row = window.row(group)
        held.update(zip(row.query_slots, group, strict=True))
        yield group, row, held
        frame = group.stop


def check(config, frames):
    mask = figure1.mask(config, frames)
    for group, row, held in play(config, frames):
        # Frames of a group see the same.
        assert len(row.key_positions) == len(group)
        (positions,) = set(row.key_positions)
        seen = {held[slot]: rank for slot, rank in enumerate(positions) if rank >= 0}
        assert len(positions) == config.window_size
        # Sorted by time, positions are 0, 1, 2, ...: ranks, none shared.
        assert [seen[frame] for frame in sorted(seen)] == list(range(len(seen)))
        assert len(set(row.query_slots)) == len(group)
        for frame, position in zip(group, row.query_positions, strict=True):
            assert sorted(seen) == mask[frame].nonzero().flatten().tolist()
            assert position == seen[frame]


@pytest.mark.parametrize("mode", AttentionMode)
@pytest.mark.parametrize("size, warmup", [(2, 1), (3, 1), (3, 2), (5, 2), (16, 8), (16, 15)])
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 40])
def test_sees_what_the_figure_shows(mode, size, warmup, frames):
    check(AttentionWindow(size, warmup, mode), frames)


@given(configs(), st.integers(1, 70))
@settings(deadline=None, max_examples=150)
def test_sees_what_the_figure_shows_at_any_size(config, frames):
    check(config, frames)


def test_a_window_of_one_frame():
    for mode in (AttentionMode.BIDIRECTIONAL, AttentionMode.SLIDING, AttentionMode.CAUSAL):
        check(AttentionWindow(1, 1, mode), 5)


def test_the_papers_window():
    """Section 3.3: 8 warm-up frames keep positions 0..7; the current frame is last, at most 15."""
    window = AttentionWindow()
    assert window.row(window.group(8)).query_positions == (8,)
    assert window.row(window.group(15)).query_positions == (15,)
    for frame in (16, 100, 100_000):
        row = window.row(window.group(frame))
        (positions,) = row.key_positions
        assert positions[:8] == tuple(range(8))
        assert sorted(positions) == list(range(16))
        assert row.query_positions == (15,)


@given(configs(), st.integers(0, 10**9))
@settings(deadline=None)
def test_cost_does_not_grow_with_the_stream(config, frame):
    window = config
    row = window.row(window.group(frame))
    assert 0 <= min(row.query_slots) <= max(row.query_slots) < config.window_size
    assert len(window.visible(window.group(frame))) <= config.window_size
