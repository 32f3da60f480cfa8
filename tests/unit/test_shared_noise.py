"""One noise for all frames, as in StreamDiffusion and StreamV2V, or fresh noise for each."""

import pytest
import torch
import toy_stream as toy
from fed_session import FedSession
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.session import StreamSession

SHAPE = (4, 2, 3)


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**7), st.integers(0, 7))
def test_shared_noise_is_that_of_frame_0(seed, frame, step):
    shared, fresh = FrameNoise(seed, shared=True), FrameNoise(seed)
    assert torch.equal(shared(frame, step, SHAPE), fresh(0, step, SHAPE))


def test_steps_and_seeds_share_no_noise():
    made = [FrameNoise(seed, True)(5, step, SHAPE) for seed in (0, 1) for step in range(4)]
    assert len({noise.numpy().tobytes() for noise in made}) == 8


@pytest.mark.parametrize("shared", [True, False])
def test_a_still_picture_stays_still_by_shared_noise(shared):
    latents = toy.frames(1).expand(6, -1, -1, -1)
    session = FedSession(StreamSession(toy.schedule(3), FrameNoise(7, shared)), toy.ToyModel())
    out = torch.cat([session.push_all(latents), session.flush()])
    moved = (out[1:] - out[:-1]).abs().amax((1, 2, 3))
    assert (moved < 1e-6).all() if shared else (moved > 0.1).all()
