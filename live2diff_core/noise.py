"""Noise of a frame: a pure function of (seed, frame, step), whatever the batch or the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class FrameNoise:
    """Fresh noise for every frame and denoising step of a stream.

    Attributes:
        seed: any integer, of which the low 64 bits count; streams of one seed get the same noise.
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
        # Philox is a counter-based generator: each (key, counter) starts a sequence of its own.
        # torch's generator on the CPU keeps 32 bits of a seed, so frames of a long stream collide.
        key = (self.seed & _WORD) | (frame & _WORD) << 64
        generator = numpy.random.Generator(numpy.random.Philox(key=key, counter=step << 192))
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=numpy.float32))
