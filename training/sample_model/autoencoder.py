"""Trains the sample's VAE: the host's TAESD with fewer channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy.taesd.taesd import TAESD, Block
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from live2diff_core.sample_model.networks import build_autoencoder

from .fitting import Plan, fit

# What the decoder must bear: the latents' deviation is 1.
NOISE = 0.1
BATCH, CROP = 12, 64
PLAN = Plan(minutes=19, rate=2e-3)


def build() -> TAESD:
    """Make the network with fresh weights; it is trained to latents of deviation 1."""
    network = build_autoencoder()
    for fixed in (network.vae_scale, network.vae_shift):
        fixed.requires_grad_(False)
    _draw(network)
    return network


def _draw(network: nn.Module) -> None:
    """Draw weights for ReLU; the last layer of a block begins small, so that depth adds little."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, Block):
            module.conv[-1].weight.data.mul_(0.2)


def reconstruction_loss(network: TAESD, pictures: Tensor) -> Tensor:
    """Compare pictures with what is decoded from their latents, a little disturbed."""
    latents = network.encode(pictures)
    error = network.decode(latents + NOISE * torch.randn_like(latents)) - pictures
    # Slopes count on their own, because errors of a blurred picture are small in all but those;
    # so does colour without brightness, which would be learned last.
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colour = avg_pool2d(error - error.mean(1, keepdim=True), 8).square().mean()
    quality = error.abs().mean() + 2 * error.square().mean() + 0.5 * slopes + 10 * colour
    return quality + 0.02 * _departure(latents)


def _departure(latents: Tensor) -> Tensor:
    """Return how far the channels' means and deviations are from 0 and 1."""
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    return mean.square().sum() + (deviation - 1).square().sum()


def train(pictures: np.ndarray, work: Path, plan: Plan = PLAN) -> TAESD:
    """Train on [N, styles, H, W, 3] uint8."""
    torch.manual_seed(0)
    network = build()

    def loss(step: int, share: float) -> Tensor:
        return reconstruction_loss(network, crops(pictures, np.random.default_rng((2, step))))

    return fit(network, loss, plan, work / "vae.pt")


def crops(pictures: np.ndarray, random: np.random.Generator) -> Tensor:
    """Cut a batch [BATCH, 3, CROP, CROP] in -1..1, at multiples of 8 pixels."""
    cut = []
    for _ in range(BATCH):
        index, style = random.integers(pictures.shape[0]), random.integers(pictures.shape[1])
        top, left = random.integers((pictures.shape[2] - CROP) // 8 + 1, size=2) * 8
        crop = pictures[index, style, top : top + CROP, left : left + CROP]
        cut.append(crop[:, ::-1] if random.random() < 0.5 else crop)
    return to_tensor(np.stack(cut))


def to_tensor(pictures: np.ndarray) -> Tensor:
    """Turn [N, H, W, 3] uint8 into [N, 3, H, W] in -1..1."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).movedim(-1, 1).float() / 127.5 - 1


def psnr(network: TAESD, pictures: Tensor) -> float:
    """Return the peak signal-to-noise ratio of reconstructions of [N, 3, H, W] in -1..1, in dB."""
    with torch.no_grad():
        error = network.decode(network.encode(pictures)).clamp(-1, 1) - pictures
    return float(-10 * torch.log10(error.square().mean() / 4))
