"""All random numbers of a stream, as pure functions of (seed, frame, step)."""

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
        seed: any integer; only its low 64 bits count. Streams with one seed have the same noise.
        shared: whether all frames have the noise of frame 0, as in StreamDiffusion and StreamV2V,
            or each its own (Live2Diff). With shared noise, still frames stay still, but structure
            of the noise may appear fixed to the screen.
    """

    seed: int
    shared: bool = False

    def __call__(self, frame: int, step: int, shape: Sequence[int]) -> Tensor:
        """Draw the noise that is added to `frame` before denoising step `step`.

        Args:
            frame: index in the stream, from 0.
            step: 0 for the noise of the input latent, i > 0 for that of x0 before step i.
            shape: (C, h, w).

        Returns:
            [C, h, w] float32, normally distributed, drawn on the CPU so that all devices agree.
        """
        generator = keyed_generator(self.seed, 0 if self.shared else frame, step)
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=numpy.float32))


@dataclass(frozen=True)
class TokenPermutation:
    """Random permutations of tokens, for merging them, in a stream with `seed`."""

    seed: int

    def __call__(self, frame: int, step: int, layer: str, count: int) -> Tensor:
        """Shuffle 0..count-1 for an attention `layer`, frame and step: [count] int64, on CPU."""
        generator = keyed_generator(self.seed, frame, step, f"tokens of {layer}")
        return torch.from_numpy(generator.permutation(count))


def frame_chance(seed: int, frame: int) -> float:
    """Draw a number in [0, 1) for `frame`."""
    return float(keyed_generator(seed, frame, 0, "chance").random())


def cut_chance(seed: int, chunk: int, step: int) -> float:
    """Draw a number in [0, 1) for a denoising step of a chunk of frames."""
    return float(keyed_generator(seed, chunk, step, "cut").random())


def keyed_generator(seed: int, frame: int, step: int, purpose: str = "") -> numpy.random.Generator:
    """Return the random numbers of one frame, denoising step and purpose under `seed`."""
    # Philox is a counter-based generator: each (key, counter) starts its own sequence. torch's
    # CPU generator uses only 32 bits of a seed, so frames of a long stream would collide.
    key = (seed & _WORD) | (frame & _WORD) << 64
    counter = step << 192 | zlib.crc32(purpose.encode()) << 128
    return numpy.random.Generator(numpy.random.Philox(key=key, counter=counter))
