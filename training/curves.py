"""The curves of a run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor


@dataclass(frozen=True)
class Point:
    """A point of the curves: means since the last one.

    Attributes:
        loss: of all windows, over all devices.
        gradient_norm: before it was limited.
        learning_rate: of the last step.
        seconds: per step.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    seconds: float


class Meter:
    """Sums losses and norms on the device, so that steps need not wait for it."""

    def __init__(self, accelerator: Accelerator) -> None:
        """Begin at nothing, now."""
        self._accelerator, self._steps = accelerator, 0
        self._sums: Tensor | None = None
        self._since = time.perf_counter()

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Add a step: its loss and gradient norm, 0-d tensors."""
        both = torch.stack([loss, norm])
        self._sums = both if self._sums is None else self._sums + both
        self._steps += 1

    def read(self, learning_rate: float) -> Point:
        """Return the means over all processes, and start anew."""
        assert self._sums is not None
        means = self._accelerator.reduce(self._sums / self._steps, "mean")
        now = time.perf_counter()
        loss, norm = means.tolist()
        point = Point(loss, norm, learning_rate, (now - self._since) / self._steps)
        self._sums, self._steps, self._since = None, 0, now
        return point
