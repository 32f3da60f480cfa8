"""Skips frames that are similar to the last translated one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from .noise import frame_chance
from .state import floats, integer, require

# Values that are compared at a time, few enough to stay in the processor's cache.
_BLOCK = 1 << 14


@dataclass(frozen=True)
class SkipRule:
    """Which frames are skipped.

    Attributes:
        threshold: least cosine similarity of skipped frames, 0 to 1; above it the probability of
            a skip grows linearly to 1 at similarity 1. A threshold of 1 skips no frame.
        most_skipped: most frames skipped in a row, at least 0.

    Raises:
        ValueError: a number is out of range.
    """

    threshold: float = 0.98
    most_skipped: int = 10

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be 0 to 1.")
        if self.most_skipped < 0:
            raise ValueError(f"most_skipped is {self.most_skipped}; it must be at least 0.")

    def __str__(self) -> str:
        """Name the rule in saved streams; this text must not change."""
        return f"threshold={self.threshold}, most_skipped={self.most_skipped}"


class SimilarFrameFilter:
    """StreamDiffusion's stochastic similarity filter (section 3.5), as a function of the frame.

    Random numbers depend on (seed, frame), so that the same frames are skipped however the stream
    is divided. Each frame is compared with the last translated frame, not with the previous one,
    so that slow changes add up.

    Frames are compared on the CPU and by numpy: the decision is needed before any work of the
    frame is queued, and a number that torch computes has to be read back.
    """

    def __init__(self, seed: int, rule: SkipRule | None = None) -> None:
        """Start a stream.

        Args:
            seed: the stream's seed.
            rule: which frames are skipped; None skips no frame.
        """
        self.rule, self._seed = rule, seed
        self.reset()

    def follow(self, rule: SkipRule | None) -> None:
        """Decide by another rule from now on, or the same."""
        self.rule = rule
        if rule is None:
            self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._last: Tensor | None = None
        # What the similarity needs of the last translated frame; computed at its first use.
        self._last_square: float | None = None
        self._skipped = 0

    def skips(self, frame: int, picture: Tensor) -> bool:
        """Decide whether to skip `frame`, and count it if so; else call `translated` next.

        Args:
            frame: index in the stream.
            picture: uint8 pixels or a latent on the CPU, of the same shape for all frames.
        """
        rule = self.rule
        if rule is None or self._last is None or self._skipped >= rule.most_skipped:
            return False
        if rule.threshold == 1:
            return False
        chance = 1 - (1 - self._similarity(picture)) / (1 - rule.threshold)
        skipped = frame_chance(self._seed, frame) < chance
        self._skipped += skipped
        return skipped

    def translated(self, picture: Tensor) -> None:
        """Store the picture of a translated frame, with which the next frames are compared."""
        self._last, self._last_square = picture if self.rule else None, None
        self._skipped = 0

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors by name; not copied."""
        last = {} if self._last is None else {"last": self._last}
        return {"skipped": torch.tensor(self._skipped), **last}

    @staticmethod
    def check_state(state: Mapping[str, Tensor]) -> int:
        """Check what `state_dict` returned, and return how many frames were skipped in a row.

        Raises:
            StateError: it is damaged.
        """
        skipped = integer(state, "skipped")
        if "last" in state:
            floats(state, "last", *[None] * state["last"].ndim, or_bytes=True)
            require(state["last"].ndim > 0, "'last' is no picture")
        right = not skipped or "last" in state
        require(right, f"{skipped} frames were skipped, but 'last' is missing")
        return skipped

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._skipped = int(state["skipped"])
        self._last = state["last"].to("cpu") if "last" in state else None
        self._last_square = None

    def _similarity(self, picture: Tensor) -> float:
        """Return the cosine similarity to the last translated frame; 1 if both are all 0."""
        assert self._last is not None
        if self._last_square is None:
            _, self._last_square = _products(self._last, self._last)
        mixed, square = _products(self._last, picture)
        if not square and not self._last_square:
            return 1.0
        return mixed / max((self._last_square * square) ** 0.5, 1e-30)


def _products(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Return the inner products of two frames, `one` with `other` and `other` with itself."""
    # Latents may be of a type that numpy does not know.
    first, second = (
        (frame if frame.dtype == torch.uint8 else frame.float()).numpy().ravel()
        for frame in (one, other)
    )
    mixed = square = 0.0
    for start in range(0, first.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        a, b = _centred(first[block]), _centred(second[block])
        # Not by `@`: BLAS spreads it over threads, which wait for each other on a busy processor.
        mixed += float((a * b).sum())
        square += float((b * b).sum())
    return mixed, square


def _centred(values: NDArray[Any]) -> NDArray[numpy.float64]:
    """Convert to float64 around 0; in 0..255 all pictures have similar directions.

    Twice the distance of a pixel to 127.5 is an integer, and sums of products of such integers are
    exact in float64 (below 2^53, up to 10^11 pixels), in whatever order they are added.
    """
    centred = values.astype(numpy.float64)
    if values.dtype == numpy.uint8:
        centred *= 2.0
        centred -= 255.0
    return centred
