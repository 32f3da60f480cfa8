"""Latents that a stream cannot take are refused with what was expected and what came."""

import pytest
import torch

from live2diff_core.run.clip import LatentError, frame_latents, matching_depth


def latent(*shape):
    return {"samples": torch.zeros(shape)}


def test_takes_frames_as_they_are():
    given = latent(3, 4, 9, 13)
    assert frame_latents(given) is given["samples"]
    assert matching_depth(latent(3, 4, 9, 13), given["samples"]).shape == (3, 4, 9, 13)


@pytest.mark.parametrize("shape", [(3, 16, 8, 8), (3, 4, 8), (1, 4, 3, 8, 8), (3, 8, 8, 4)])
def test_other_shapes(shape):
    with pytest.raises(
        LatentError, match=r"frames: expected SD1.5 latents \[frames, 4, .*SD1.5 VAE"
    ):
        frame_latents(latent(*shape))


def test_zero_frames():
    with pytest.raises(LatentError, match=r"frames: there are no frames \(\[0, 4, 8, 8\]\)"):
        frame_latents(latent(0, 4, 8, 8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite(value):
    broken = latent(5, 4, 8, 8)
    broken["samples"][2:4, 1, 3, 3] = value
    with pytest.raises(LatentError, match=r"frame 2 \(of 2 such frames\) holds NaN.*--fp32-vae"):
        frame_latents(broken)
    with pytest.raises(LatentError, match="depth: frame 2"):
        matching_depth(broken, torch.zeros(5, 4, 8, 8))


def test_noise_mask():
    with pytest.raises(LatentError, match="noise mask; streams do not inpaint"):
        frame_latents({**latent(1, 4, 8, 8), "noise_mask": torch.zeros(1, 64, 64)})


def test_depth_of_another_count():
    with pytest.raises(LatentError, match="depth: 4 depth latents came for 5 frames.*same images"):
        matching_depth(latent(4, 4, 8, 8), torch.zeros(5, 4, 8, 8))


def test_depth_of_another_size():
    with pytest.raises(LatentError, match="are 64 x 48 pixels, the frames 64 x 64.*Resize both"):
        matching_depth(latent(5, 4, 6, 8), torch.zeros(5, 4, 8, 8))
