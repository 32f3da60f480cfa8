"""Pairs of frames of two videos that belong together.

Legend of this folder: F frames, H W height and width. A picture is uint8 [H, W, 3], RGB; a flow is
float32 [H, W, 2], x and y in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Flow = NDArray[np.float32]
Mask = NDArray[np.bool_]


class MeasureError(ValueError):
    """Videos that cannot be compared. The message says what came and what to do."""


def paired(inputs: Iterable[Picture], outputs: Iterable[Picture]) -> Iterator[tuple[Picture, ...]]:
    """Yield (input, output) frame by frame, holding one of each.

    Raises:
        MeasureError: the videos have no frames, or other sizes or other numbers of frames.
    """
    ends = object()
    source, result = iter(inputs), iter(outputs)
    count = 0
    while True:
        before, after = next(source, ends), next(result, ends)
        if before is ends or after is ends:
            break
        assert isinstance(before, np.ndarray) and isinstance(after, np.ndarray)
        _check_sizes(before, after, count)
        count += 1
        yield before, after
    if before is not after:
        shorter, longer = ("input", "output") if before is ends else ("output", "input")
        raise MeasureError(
            f"The {shorter} has {count} frames, the {longer} more. Only videos with the same "
            "frames can be compared: trim one of them, or give them the same frame rate."
        )
    if not count:
        raise MeasureError("The videos have no frames. Check the videos, and how they are trimmed.")


def _check_sizes(before: Picture, after: Picture, index: int) -> None:
    if before.shape == after.shape:
        return
    raise MeasureError(
        f"Frame {index} of the input is {_size(before)} pixels, that of the output "
        f"{_size(after)} (width x height). Scale one of them, or let the input be scaled and "
        "cropped as Stream Video does it (match_size; --match-size)."
    )


def _size(picture: Picture) -> str:
    return f"{picture.shape[1]}x{picture.shape[0]}"
