"""All that is random in a stream, as pure functions of (seed, frame, step)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

_WORD = (1 << 64) - 1


@dataclass(frozen=True)
class FrameNoise:
    """Noise for every frame and denoising step of a stream.

    Attributes:
        seed: any integer, of which the low 64 bits count; streams of one seed have the same noise.
        shared: whether all frames have the noise of frame 0, as in StreamDiffusion and StreamV2V,
            or each its own (Live2Diff). With shared noise still frames stay still, but structure
            of the noise may stick to the screen.
    """

    seed: int
    shared: bool = False

    def __call__(self, frame: int, step: int, shape: Sequence[int]) -> Tensor:
        """Draw the noise that is added to `frame` before denoising step `step`.

        Args:
            frame: index in the stream, from 0.
            step: 0 noises the input latent, i > 0 re-noises x0 before step i.
            shape: (C, h, w).

        Returns:
            [C, h, w] float32 of normal distribution, on the CPU so that all devices agree.
        """
        generator = _generator(self.seed, 0 if self.shared else frame, step)
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=numpy.float32))


@dataclass(frozen=True)
class TokenPermutation:
    """Random permutations of tokens, for merging them, in a stream of `seed`."""

    seed: int

    def __call__(self, frame: int, step: int, layer: str, count: int) -> Tensor:
        """Shuffle 0..count-1 for one attention `layer`, frame and step: [count] int64, CPU."""
        generator = _generator(self.seed, frame, step, f"tokens of {layer}")
        return torch.from_numpy(generator.permutation(count))


def frame_chance(seed: int, frame: int) -> float:
    """Draw a number from 0 to below 1 for `frame`."""
    return float(_generator(seed, frame, 0, "chance").random())


def _generator(seed: int, frame: int, step: int, purpose: str = "") -> numpy.random.Generator:
    # Philox is a counter-based generator: each (key, counter) starts a sequence of its own.
    # torch's generator on the CPU keeps 32 bits of a seed: frames of a long stream would collide.
    key = (seed & _WORD) | (frame & _WORD) << 64
    counter = step << 192 | zlib.crc32(purpose.encode()) << 128
    return numpy.random.Generator(numpy.random.Philox(key=key, counter=counter))
