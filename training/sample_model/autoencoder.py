"""Trains the sample's VAE: the host's AutoencoderKL, narrow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from live2diff_core.sample_model.networks import build_autoencoder

from .fitting import Plan, fit
from .weights import initialise

# Standard deviation of an SD1.5 latent before it is scaled.
LATENT_STD = 1 / 0.18215
# What the decoder must bear, as a share of the latents' deviation.
NOISE = 0.1
# ln(variance) that the encoder states: none.
_LOG_VARIANCE = -30.0
BATCH, CROP = 12, 64
PLAN = Plan(minutes=35, rate=2e-3)


def build() -> AutoencoderKL:
    """Make the network with fresh weights."""
    return initialise(build_autoencoder())


def means(network: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Encode [N, 3, H, W] in -1..1 to [N, 4, H/8, W/8], as the host does."""
    return network.quant_conv(network.encoder(pictures))[:, :4]


def decoded(network: AutoencoderKL, latents: Tensor) -> Tensor:
    """Decode [N, 4, h, w] to [N, 3, 8h, 8w], about -1..1."""
    return network.decoder(network.post_quant_conv(latents))


def reconstruction_loss(network: AutoencoderKL, pictures: Tensor) -> Tensor:
    """Compare pictures with what is decoded from their latents, a little disturbed."""
    latents = means(network, pictures)
    disturbed = latents + NOISE * torch.randn_like(latents)
    error = decoded(network, disturbed) - pictures
    # Slopes count on their own, because errors of a blurred picture are small in all but those;
    # so does colour without brightness, which is learned last, if at all, where it does not.
    slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    colour = avg_pool2d(error - error.mean(1, keepdim=True), 8).square().mean()
    quality = error.abs().mean() + 2 * error.square().mean() + 0.5 * slopes + 20 * colour
    return quality + 1e-3 * latents.square().mean()


def train(pictures: np.ndarray, work: Path, plan: Plan = PLAN) -> AutoencoderKL:
    """Train on [N, styles, H, W, 3] uint8, and return the network with normalised latents."""
    network = build()

    def loss(step: int, share: float) -> Tensor:
        return reconstruction_loss(network, crops(pictures, np.random.default_rng((2, step))))

    return normalised(fit(network, loss, plan, work / "vae.pt"), pictures)


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


@torch.no_grad()
def normalised(network: AutoencoderKL, pictures: np.ndarray, count: int = 100) -> AutoencoderKL:
    """Give every channel of the latents mean 0 and SD1.5's deviation, without other effects."""
    chosen = pictures[:: max(1, len(pictures) // count), :].reshape(-1, *pictures.shape[2:])
    latents = torch.cat([means(network, to_tensor(chosen[i : i + 1])) for i in range(len(chosen))])
    mean, factor = latents.mean((0, 2, 3)), LATENT_STD / latents.std((0, 2, 3))
    quant, post = network.quant_conv, network.post_quant_conv
    quant.weight[:4].mul_(factor[:, None, None, None])
    quant.bias[:4].sub_(mean).mul_(factor)
    quant.weight[4:].zero_()
    quant.bias[4:].fill_(_LOG_VARIANCE)
    post.bias.add_(torch.einsum("oi,i->o", post.weight[..., 0, 0], mean))
    post.weight.div_(factor[None, :, None, None])
    return network


def psnr(network: nn.Module, pictures: Tensor) -> float:
    """Return the peak signal-to-noise ratio of reconstructions of [N, 3, H, W] in -1..1, in dB."""
    with torch.no_grad():
        error = decoded(network, means(network, pictures)).clamp(-1, 1) - pictures
    return float(-10 * torch.log10(error.square().mean() / 4))
