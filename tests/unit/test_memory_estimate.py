"""The KV-cache's size, before anything runs. Real runs are compared in tests/host."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.live2diff.layout import SD15, MotionLayout
from live2diff_core.stream.byte_size import format_bytes
from live2diff_core.stream.memory import StreamShape


def sd15(latent_size, slots=16, passes=1, bytes_per_value=2):
    return SD15.cache_bytes(StreamShape(latent_size, passes, bytes_per_value), slots)


def test_the_papers_number():
    assert sd15((64, 64)) == pytest.approx(1.52e9, rel=0.01)
    assert sd15((64, 64), passes=2) == pytest.approx(3.04e9, rel=0.01)


def test_by_hand():
    """One module of 8 channels on each of two levels, 3x5 pixels, then 2x3 after halving."""
    one_copy = 3 * 5 * 8 + 2 * 3 * 8 + 2 * 3 * 8 + 3 * 5 * 8
    layout = MotionLayout(((8,), (8,)), ((8,), (8,)), None, 24, None)
    shape = StreamShape((3, 5), passes=1, bytes_per_value=2)
    assert layout.cache_bytes(shape, 4) == one_copy * 4 * 2 * 2 * 2
    with_middle = replace(layout, mid=8)
    assert with_middle.cache_bytes(shape, 4) == (one_copy + 2 * 3 * 8) * 4 * 2 * 2 * 2


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 32), st.integers(1, 8))
def test_grows_with_everything(height, width, slots, steps):
    base = sd15((height, width), slots, passes=steps)
    assert base == sd15((width, height), slots, passes=steps)
    assert base < sd15((height + 8, width), slots, passes=steps)
    assert base * 2 == sd15((height, width), slots * 2, passes=steps)
    assert base == steps * sd15((height, width), slots)
    assert base * 2 == sd15((height, width), slots, passes=steps * 2)
    assert base * 2 == sd15((height, width), slots, passes=steps, bytes_per_value=4)


def test_written_for_people():
    assert format_bytes(1_522_000_000) == "1.52 GB"
    assert format_bytes(999_400) == "1.0 MB"
    assert format_bytes(0) == "0.0 MB"
