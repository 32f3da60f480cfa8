"""Noise depends on the seed, the frame and the step, and on nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.stream.noise import FrameNoise

SHAPE = (4, 8, 8)
seeds = st.integers(0, 2**64 - 1)
frames = st.integers(0, 10**7)
steps = st.integers(0, 7)


@given(seeds, frames, steps)
def test_is_a_function(seed, frame, step):
    noise = FrameNoise(seed)
    first = noise(frame, step, SHAPE)
    noise(frame + 1, step, SHAPE)
    torch.manual_seed(frame)
    assert torch.equal(noise(frame, step, SHAPE), first)
    assert torch.equal(FrameNoise(seed)(frame, step, SHAPE), first)
    assert first.shape == SHAPE and first.dtype is torch.float32 and first.device.type == "cpu"


def test_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.randn(3)
    torch.manual_seed(0)
    FrameNoise(1)(2, 3, SHAPE)
    assert torch.equal(torch.randn(3), expected)


def test_no_two_alike():
    made = {}
    for seed in (0, 1, 2, 2**32, 2**32 + 1, 2**63, 2**64 - 1):
        for frame in (*range(12), 2**16, 2**31, 2**32, 2**32 + 1):
            for step in range(8):
                key = FrameNoise(seed)(frame, step, (16,)).numpy().tobytes()
                assert made.setdefault(key, (seed, frame, step)) == (seed, frame, step)


def test_frames_that_share_32_bits_of_a_hash():
    """torch.Generator keeps 32 bits of a seed: these two frames once got the same noise."""
    noise = FrameNoise(0)
    assert not torch.equal(noise(18539, 0, SHAPE), noise(147295, 0, SHAPE))


def test_neighbours_are_not_correlated():
    rows = [FrameNoise(5)(frame, step, SHAPE).flatten() for frame in range(20) for step in range(4)]
    rows += [FrameNoise(seed)(0, 0, SHAPE).flatten() for seed in (6, 7, 5 + 2**32)]
    correlation = torch.corrcoef(torch.stack(rows))
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 6 / 256**0.5


def test_is_normal():
    values = torch.cat([FrameNoise(3)(frame, 0, SHAPE).flatten() for frame in range(400)])
    count = len(values)
    assert abs(values.mean()) < 5 / count**0.5
    assert abs(values.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((values**3).mean()) < 5 * (15 / count) ** 0.5
    assert abs((values**4).mean() - 3) < 5 * (96 / count) ** 0.5
    inside = (values.abs() < 1).float().mean()
    assert abs(inside - 0.6827) < 5 * (0.6827 * 0.3173 / count) ** 0.5


@pytest.mark.parametrize("seed", [0, -1, 2**63, 2**64 - 1])
def test_takes_any_seed(seed):
    assert FrameNoise(seed)(0, 0, SHAPE).isfinite().all()
