"""The frames that a long video begins with, and the requests for those that are to be made.

Both come from one reader, so that a long video runs, stops and resumes as a translated one does. A
request is a picture of one pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import islice

import numpy as np

from ..video.frame import Image, PendingFrame, VideoInfo, WarningLog
from ..video.frame_size import plan_frame_size
from ..video.reader import VideoReader

RATE = Fraction(8)
# Frames of a chunk, and how many of them the next one re-creates and discards.
CHUNK, SHARED = 16, 8
MADE = CHUNK - SHARED
_TIME_BASE = Fraction(1, 12_800)
_REQUEST = np.zeros((1, 1, 3), dtype=np.uint8)
# Makes a picture, uint8 [H, W, 3].
MakeImage = Callable[[], Image]


class GivenFramesError(ValueError):
    """A long video cannot begin with these frames; the message says with which it can."""


class LongSize:
    """The size of a long video, for its run: frames come in it, or are requests.

    Args:
        width, height: pixels.
    """

    def __init__(self, width: int, height: int) -> None:
        """Store the size."""
        self.size = (width, height)

    def __str__(self) -> str:
        """Describe it for people."""
        return f"{self.size[0]}x{self.size[1]}"

    def apply(self, image: Image) -> Image:
        """Return the picture itself."""
        return image


def is_request(picture: object) -> bool:
    """Return whether a picture [H, W, 3], an array or a tensor, is a request for a frame."""
    return tuple(getattr(picture, "shape", ())) == _REQUEST.shape


def check_given(frames: int | None) -> None:
    """Refuse a number of frames that a long video cannot begin with; None if it is unknown.

    Raises:
        GivenFramesError: it is 2 to 15.
    """
    if frames is not None and 1 < frames < CHUNK:
        raise GivenFramesError(
            f"A long video begins with {CHUNK} frames or more, not with {frames}: the model goes "
            f"on from the last {SHARED} of {CHUNK}. Give at least {CHUNK} frames (2 seconds at 8 "
            "frames per second), one picture (which is repeated), or none."
        )


def sized(image: Image, width: int, height: int) -> Image:
    """Scale a picture to fill width x height, and cut off what sticks out."""
    return plan_frame_size(image.shape[1], image.shape[0], "fill", width, height).apply(image)


def open_long_video(
    given: Iterator[MakeImage],
    size: tuple[int, int],
    frames: int,
    beyond: bool = False,
    count: int = 0,
    log: WarningLog | None = None,
) -> VideoReader:
    """Open a reader of given frames and of requests for the others.

    Args:
        given: pictures of any size.
        size: width and height of the long video.
        frames: of the whole video, or with `beyond` of its part that is to be made. All given
            frames stay, even if they are more.
        beyond: see `frames`.
        count: how many frames are given, or an estimate, for the progress.
        log: takes warnings; by default a new one.

    Raises:
        GivenFramesError: from the reader: 2 to 15 frames are given.
    """
    total = count + frames if beyond else max(count, frames)
    info = VideoInfo(*size, RATE, _TIME_BASE, total, "frames")
    return VideoReader(
        info, _pending(given, size, frames, beyond), log or WarningLog("the first frames")
    )


def _pending(
    given: Iterator[MakeImage], size: tuple[int, int], frames: int, beyond: bool
) -> Iterator[PendingFrame]:
    first = list(islice(given, CHUNK))
    if len(first) == 1:
        first *= CHUNK if beyond else min(CHUNK, frames)
    elif first:
        check_given(len(first))
    number = 0
    for make in _chained(first, given):
        yield _frame(number, partial(_made, make, size))
        number += 1
    for later in range(number, number + frames if beyond else frames):
        yield _frame(later, _request)


def _chained(first: list[MakeImage], rest: Iterator[MakeImage]) -> Iterator[MakeImage]:
    # Emptied on the way, because each may hold a decoded picture.
    while first:
        yield first.pop(0)
    yield from rest


def _made(make: MakeImage, size: tuple[int, int]) -> Image:
    return sized(make(), *size)


def _held(image: Image) -> Image:
    return image


def _request() -> Image:
    return _REQUEST


def _frame(number: int, make: MakeImage) -> PendingFrame:
    return PendingFrame(number / RATE, 1 / RATE, make)


def every_frame(reader: VideoReader) -> Iterator[MakeImage]:
    """Yield the frames of a video as they are, whatever their times."""
    for frame in reader:
        yield partial(_held, frame.image)


def at_rate(reader: VideoReader, rate: Fraction = RATE) -> Iterator[MakeImage]:
    """Yield what a video shows at the times 0, 1 / rate, 2 / rate, ..., to its end."""
    number, held = 0, None
    for frame in reader:
        while held is not None and number / rate < frame.time:
            yield partial(_held, held.image)
            number += 1
        held = frame
    while held is not None and number / rate < held.time + held.duration:
        yield partial(_held, held.image)
        number += 1
