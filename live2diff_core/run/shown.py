"""When frames are shown, and how saved states say so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from ..stream.state import require


class Shown(NamedTuple):
    """The time and the duration of a frame, in seconds."""

    time: Fraction
    duration: Fraction


def shown_numbers(shown: Iterable[Shown]) -> Tensor:
    """Convert times and durations to int64 [n, 4]: numerators and denominators."""
    rows = [
        [s.time.numerator, s.time.denominator, s.duration.numerator, s.duration.denominator]
        for s in shown
    ]
    return torch.tensor(rows, dtype=torch.int64).view(-1, 4)


def shown_from(state: Mapping[str, Tensor], name: str, count: int | None = None) -> list[Shown]:
    """Read what `shown_numbers` made of `count` times, or of any number of them.

    Raises:
        ValueError: the entry is missing or damaged.
    """
    numbers = state.get(name, torch.empty(0))
    rows = len(numbers) if count is None else count
    require(
        (numbers.dtype, tuple(numbers.shape)) == (torch.int64, (rows, 4))
        and bool((numbers[:, 1::2] > 0).all()),
        f"'{name}' should be the times of {'some' if count is None else count} frames",
    )
    return [Shown(Fraction(a, b), Fraction(c, d)) for a, b, c, d in numbers.tolist()]
