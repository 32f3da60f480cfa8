"""The enhancer's prediction for a chunk: guidance, rescaled, of its v-prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .enhancer_file import EnhancerUNet
from .enhancer_schedule import Ladder

GUIDANCE = 7.5
_RESCALE = 0.2


@dataclass(frozen=True)
class ChunkRefiner:
    """Predicts the clean latents of a chunk.

    Attributes:
        unet: the enhancer's.
        ladder: the steps.
        text: [2, 77, C], of the negative prompt and the prompt.
        guidance: weight of the prompt against the negative prompt.
        rescale: how far the guided prediction gets the spread of that of the prompt alone, 0 to 1.
    """

    unet: EnhancerUNet
    ladder: Ladder
    text: Tensor
    guidance: float = GUIDANCE
    rescale: float = _RESCALE

    def __call__(self, latents: Tensor, step: int) -> Tensor:
        """Predict x0 [4, F, h, w] from the solver's latents of the same shape, both float32."""
        scaled = self.ladder.scaled(latents, step).unsqueeze(0)
        rows = scaled.expand(2, -1, -1, -1, -1)
        predicted = self.unet(rows, torch.tensor(self.ladder.times[step]), self.text)
        v = self._guided(*predicted.to(latents.device).split(1))
        return self.ladder.x0(scaled, v, step)[0]

    def _guided(self, negative: Tensor, positive: Tensor) -> Tensor:
        guided = negative + self.guidance * (positive - negative)
        # One spread over all elements of the chunk.
        spread = positive.std() / guided.std()
        return guided * (self.rescale * spread + 1 - self.rescale)
