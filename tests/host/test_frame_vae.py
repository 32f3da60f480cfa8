"""The VAE of streams: frames in 0..1, and whether they came from finite numbers."""

import pytest
import torch
from host_stream import core
from live_stream_inputs import TinyVAE, pictures


@pytest.fixture
def coder(pack):
    return core("host.vae").FrameVAE(TinyVAE())


def test_bytes_scaled_on_the_device_are_the_floats_of_a_graph(coder):
    found = pictures(2).mul(255).round()
    as_floats, as_bytes = found / 255, found.to(torch.uint8)
    to_float = core("run.translator").to_float
    assert torch.equal(coder.encode(to_float(as_bytes)), coder.encode(as_floats))


def test_frames_lie_in_0_to_1(coder):
    frames, finite = coder.decode(coder.encode(pictures(2)) * 100)
    assert frames.shape == (2, 64, 80, 3) and finite
    assert frames.min() == 0 and frames.max() == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_noticed(coder, value):
    """Infinity is no longer to be seen in a frame, which the host clamps to 0..1."""
    latents = coder.encode(pictures(2))
    assert coder.decode(latents)[1]
    latents[1, 2, 3, 4] = value
    frames, finite = coder.decode(latents)
    assert not finite and finite.shape == ()
    assert torch.equal(frames[0], coder.decode(latents[:1])[0][0])
