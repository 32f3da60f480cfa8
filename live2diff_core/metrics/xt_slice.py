"""X-T slices: one row of every frame below each other, which shows flicker as stripes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .frames import MeasureError, Picture

LIMIT = 1024
_GAP, _LEAST_HEIGHT, _WHITE = 8, 256, 255


class XTSlice:
    """Row `row` of the frames of one video: x to the right, time downwards.

    A still background gives vertical lines; motion tilts them; flicker breaks them into horizontal
    stripes.

    Source: figure 3 of Xing et al., "Live2Diff". Of longer videos every second, fourth, ... frame
    is kept, so that at most `limit` rows are held.

    Args:
        width: pixels of the frames.
        row: which one, from 0 at the top.
        limit: most rows held; even.
    """

    def __init__(self, width: int, row: int, limit: int = LIMIT) -> None:
        """Allocate the slice."""
        self._rows = np.zeros((limit, width, 3), dtype=np.uint8)
        self._row, self._stride, self._frames = row, 1, 0

    def add(self, picture: Picture) -> None:
        """Append the row of the next frame."""
        if self._frames == len(self._rows) * self._stride:
            self._rows[: len(self._rows) // 2] = self._rows[::2]
            self._stride *= 2
        if self._frames % self._stride == 0:
            self._rows[self._frames // self._stride] = picture[self._row]
        self._frames += 1

    @property
    def image(self) -> NDArray[np.uint8]:
        """The slice, uint8 [T, W, 3], one row for each frame that is kept."""
        return self._rows[: -(-self._frames // self._stride)]


def row_at(height: int, position: float) -> int:
    """Return the row at `position`, 0 (top) to 1 (bottom).

    Raises:
        MeasureError: the position is outside.
    """
    if not 0 <= position <= 1:
        raise MeasureError(f"The row of the X-T slice lies at 0 to 1 of the height, not {position}")
    return min(int(position * height), height - 1)


def side_by_side(*slices: XTSlice) -> NDArray[np.uint8]:
    """Show slices of equally many frames beside each other: uint8 [T, W', 3].

    Rows are repeated, so that a short clip can be seen.
    """
    images = [each.image for each in slices]
    repeat = max(1, -(-_LEAST_HEIGHT // len(images[0])))
    gap = np.full((len(images[0]), _GAP, 3), _WHITE, dtype=np.uint8)
    parts = [part for image in images for part in (gap, image)][1:]
    image = np.concatenate(parts, axis=1)
    return image if repeat == 1 else image.repeat(repeat, axis=0)
