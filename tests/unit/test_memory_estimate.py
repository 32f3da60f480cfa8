"""The KV-cache's size, before anything runs. Real runs are compared in tests/host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.memory_estimate import format_bytes, kv_cache_bytes

DOWN = ((320,) * 2, (640,) * 2, (1280,) * 2, (1280,) * 2)
UP = ((1280,) * 3, (1280,) * 3, (640,) * 3, (320,) * 3)


def sd15(latent_size, slots=16, **more):
    return kv_cache_bytes(DOWN, UP, None, latent_size, slots, **more)


def test_the_papers_number():
    assert sd15((64, 64)) == pytest.approx(1.52e9, rel=0.01)
    assert sd15((64, 64), denoising_steps=2) == pytest.approx(3.04e9, rel=0.01)


def test_by_hand():
    """One module of 8 channels on each of two levels, 3x5 pixels, then 2x3 after halving."""
    one_copy = 3 * 5 * 8 + 2 * 3 * 8 + 2 * 3 * 8 + 3 * 5 * 8
    assert kv_cache_bytes([(8,), (8,)], [(8,), (8,)], None, (3, 5), 4) == one_copy * 4 * 2 * 2 * 2
    with_middle = kv_cache_bytes([(8,), (8,)], [(8,), (8,)], 8, (3, 5), 4)
    assert with_middle == (one_copy + 2 * 3 * 8) * 4 * 2 * 2 * 2


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 32), st.integers(1, 8))
def test_grows_with_everything(height, width, slots, steps):
    base = sd15((height, width), slots, denoising_steps=steps)
    assert base == sd15((width, height), slots, denoising_steps=steps)
    assert base < sd15((height + 8, width), slots, denoising_steps=steps)
    assert base * 2 == sd15((height, width), slots * 2, denoising_steps=steps)
    assert base == steps * sd15((height, width), slots)
    assert base * 2 == sd15((height, width), slots, denoising_steps=steps, conditionings=2)
    assert base * 2 == sd15((height, width), slots, denoising_steps=steps, bytes_per_value=4)


def test_written_for_people():
    assert format_bytes(1_522_000_000) == "1.52 GB"
    assert format_bytes(999_400) == "1.0 MB"
    assert format_bytes(0) == "0.0 MB"
