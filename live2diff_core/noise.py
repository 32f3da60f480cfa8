"""Noise of a frame: a pure function of (seed, frame, step), whatever the batch or the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    """Spread 64 bits evenly (SplitMix64's finaliser), so that nearby frames share nothing."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


@dataclass(frozen=True)
class FrameNoise:
    """Fresh noise for every frame and denoising step of a stream.

    Attributes:
        seed: any integer; two streams of the same seed get the same noise.
    """

    seed: int

    def __call__(self, frame: int, step: int, shape: Sequence[int]) -> Tensor:
        """Make the noise that enters `frame` before denoising step `step`.

        Args:
            frame: index in the stream, from 0.
            step: 0 noises the input latent; i > 0 re-noises x0 before step i.
            shape: of one frame's latent, [C, h, w].

        Returns:
            [C, h, w] float32 on the CPU (so that all devices agree), normally distributed.
        """
        key = _mix(_mix(_mix(self.seed & _MASK) ^ frame) ^ step)
        # torch.manual_seed takes signed 64-bit seeds.
        generator = torch.Generator(device="cpu").manual_seed(key >> 1)
        return torch.randn(tuple(shape), generator=generator, dtype=torch.float32, device="cpu")
