"""Means with confidence intervals, and comparisons of two methods on the same clips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .measuring import Sample

_RESAMPLED, _LEVEL = 10_000, 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float

    def shown(self, scale: float = 1.0) -> str:
        """Write it as mean and half the width of the interval."""
        half = (self.high - self.low) / 2
        return f"{self.mean * scale:.2f} ± {half * scale:.2f}"


def by_clip(samples: Iterable[Sample], method: str, column: str) -> np.ndarray:
    """Return the mean over the seeds for every clip of a method, in the order of the clips."""
    values: dict[int, list[float]] = {}
    for sample in samples:
        if sample.method == method:
            values.setdefault(sample.clip, []).append(getattr(sample, column))
    return np.array([np.mean(values[clip]) for clip in sorted(values)])


def interval(values: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean of one number per clip, and its interval by the bootstrap over clips."""
    means = np.mean(_resampled(np.asarray(values)), axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(float(np.mean(values)), float(low), float(high))


def change(new: np.ndarray, old: np.ndarray) -> Interval:
    """Return by which share of `old` the mean of `new` is higher, on the same clips."""
    resampled = _resampled(np.stack([new, old], axis=-1)).mean(1)
    shares = resampled[:, 0] / resampled[:, 1] - 1
    low, high = np.quantile(shares, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(float(new.mean() / old.mean() - 1), float(low), float(high))


def _resampled(values: np.ndarray) -> np.ndarray:
    """Draw as many clips as there are, again and again: [10000, clips, ...]."""
    random = np.random.default_rng(0)
    return values[random.integers(len(values), size=(_RESAMPLED, len(values)))]
