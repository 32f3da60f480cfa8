"""What is trained, as one module from a batch to its loss, as `accelerate` needs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from live2diff_core.live2diff.motion_module import MotionModel

from .config import TrainingConfig
from .window_model import WindowModel
from .windows import Batch

# Of min-SNR weighting (Hang et al. 2023, gamma).
_SNR_LIMIT = 5.0


class Trainee(nn.Module):
    """A motion module; its only parameters are the module's. The UNet is not part of it.

    Args:
        config: loss and mask.
        model: ComfyUI's ModelPatcher of SD1.5.
        motion: the motion module.
    """

    def __init__(self, config: TrainingConfig, model: Any, motion: MotionModel) -> None:
        """Apply the motion module to the UNet."""
        super().__init__()
        self.motion = motion
        self.window_model = WindowModel(model, motion, config.window, config.gradient_checkpointing)
        self._loss = config.loss

    def forward(self, batch: Batch) -> Tensor:
        """Compute the mean loss of a batch, a 0-d tensor."""
        sigmas = self.window_model.sigmas[batch.timesteps]
        noisy = batch.start + sigmas.view(-1, 1, 1, 1, 1) * batch.noise
        x0 = self.window_model(noisy, sigmas, batch.text, batch.depth)
        return window_loss(self._loss, x0, batch.target, sigmas)


def window_loss(kind: str, x0: Tensor, target: Tensor, sigmas: Tensor) -> Tensor:
    """Compare predicted latents with the target.

    With `x` the noisy latents, the noise that leads from `x` to the target is (x - target) / sigma,
    also where `x` was noised from another video; the predicted noise is (x - x0) / sigma. So their
    difference is (x0 - target) / sigma.

    - `eps`: mean square of that difference, Stable Diffusion's loss.
    - `eps_l1`: its mean size, which is what section 3.1 of Live2Diff calls the loss.
    - `x0`: mean square of x0 - target: every noise level counts alike, as few-step models need it.
    - `min_snr`: as `eps`, but no level counts more than at a signal-to-noise ratio of 5.

    Args:
        kind: see above.
        x0, target: [B, L, 4, h, w].
        sigmas: [B].

    Returns:
        A 0-d float32 tensor.
    """
    error = x0.float() - target.float()
    inverse = (1.0 / sigmas).view(-1, 1, 1, 1, 1)
    if kind == "eps_l1":
        return (error * inverse).abs().mean()
    ratio = inverse.square()
    weights = {"eps": ratio, "x0": torch.ones_like(ratio), "min_snr": ratio.clamp(max=_SNR_LIMIT)}
    return (error.square() * weights[kind]).mean()
