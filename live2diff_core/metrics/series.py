"""Numbers of frames: their mean, and their course in a bounded number of points."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LIMIT = 1024


class Series:
    """Counts one number per frame, and holds at most `limit` of them; beyond that, their means.

    Args:
        limit: most points held; even.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        """Allocate the points."""
        self._sums: NDArray[np.float64] = np.zeros(limit)
        self._counts: NDArray[np.float64] = np.zeros(limit)
        self._stride = 1

    def add(self, frame: int, value: float | None) -> None:
        """Count the value of `frame`; None and what is not finite are left out."""
        if value is None or not math.isfinite(value):
            return
        while frame // self._stride >= len(self._sums):
            self._halve()
        self._sums[frame // self._stride] += value
        self._counts[frame // self._stride] += 1

    def _halve(self) -> None:
        half = len(self._sums) // 2
        for values in (self._sums, self._counts):
            values[:half] = values[::2] + values[1::2]
            values[half:] = 0
        self._stride *= 2

    @property
    def mean(self) -> float | None:
        """The mean of all values; None if there is none."""
        count = self._counts.sum()
        return float(self._sums.sum() / count) if count else None

    @property
    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frames (the first of each point) and mean values there, one array each."""
        held = np.flatnonzero(self._counts)
        return (held * self._stride).astype(np.float64), self._sums[held] / self._counts[held]
