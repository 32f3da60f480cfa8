"""All that is random in a stream: a pure function of (seed, frame, step), whatever the batch."""

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
        seed: any integer, of which the low 64 bits count; streams of one seed get the same noise.
        shared: give all frames the noise of frame 0, as StreamDiffusion and StreamV2V do, rather
            than fresh noise to each (Live2Diff). Still frames then stay still; structure of the
            noise may stick to the screen.
    """

    seed: int
    shared: bool = False

    def __call__(self, frame: int, step: int, shape: Sequence[int]) -> Tensor:
        """Make the noise that enters `frame` before denoising step `step`.

        Args:
            frame: index in the stream, from 0.
            step: 0 noises the input latent; i > 0 re-noises x0 before step i.
            shape: of one frame's latent, [C, h, w].

        Returns:
            [C, h, w] float32 on the CPU (so that all devices agree), normally distributed.
        """
        generator = _generator(self.seed, 0 if self.shared else frame, step)
        return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=numpy.float32))


@dataclass(frozen=True)
class TokenPermutation:
    """Random permutations of tokens, for merging them.

    Attributes:
        seed: the stream's.
    """

    seed: int

    def __call__(self, frame: int, step: int, layer: str, count: int) -> Tensor:
        """Shuffle 0 .. count-1 for one attention `layer`, frame and step: [count] int64, CPU."""
        generator = _generator(self.seed, frame, step, f"tokens of {layer}")
        return torch.from_numpy(generator.permutation(count))


def frame_chance(seed: int, frame: int) -> float:
    """Draw a number from 0 up to 1 for a frame."""
    return float(_generator(seed, frame, 0, "chance").random())


def _generator(seed: int, frame: int, step: int, purpose: str = "") -> numpy.random.Generator:
    # Philox is a counter-based generator: each (key, counter) starts a sequence of its own.
    # torch's generator on the CPU keeps 32 bits of a seed, so frames of a long stream collide.
    key = (seed & _WORD) | (frame & _WORD) << 64
    counter = step << 192 | zlib.crc32(purpose.encode()) << 128
    return numpy.random.Generator(numpy.random.Philox(key=key, counter=counter))
