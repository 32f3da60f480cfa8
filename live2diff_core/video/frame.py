"""What a reader returns: facts about a video, its frames, and warnings of damage."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

# A damaged file may have a warning per packet, and memory must not grow with its length.
MAX_WARNINGS = 100


class VideoError(Exception):
    """A video that cannot be read or written. The message says what was found and what to do."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video once its first frame is decoded.

    Attributes:
        width, height: pixels of the frames handed out, after rotation.
        frame_rate: average, frames per second.
        time_base: seconds per tick; all times of frames are whole multiples.
        frame_count: stated by the file and cut to the trim window, or estimated; None if unknown.
            Good enough for progress bars: fewer frames may decode.
        codec: FFmpeg's name of the codec; "webp", "png", ... for pictures.
        rotation: degrees counter-clockwise that were applied to the stored frames: 0, 90, 180, 270.
        sample_aspect_ratio: width to height of a pixel, after rotation; 1 if the file states none.
        audio_codecs: one name per audio stream whose codec FFmpeg has.
    """

    width: int
    height: int
    frame_rate: Fraction
    time_base: Fraction
    frame_count: int | None
    codec: str
    rotation: int = 0
    sample_aspect_ratio: Fraction = Fraction(1)
    audio_codecs: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodedFrame:
    """One frame.

    Attributes:
        index: 0, 1, 2, ... without gaps, from the first frame inside the trim window.
        time: seconds from the beginning of the trim window; without one, from the beginning of the
            file, not from its first frame: a video that starts after its sound keeps its delay.
        duration: seconds until the next frame; for the last one, as the file states.
        image: uint8 [H, W, 3], RGB, contiguous.
    """

    index: int
    time: Fraction
    duration: Fraction
    image: Image


@dataclass(frozen=True)
class VideoWarning:
    """Damage in a file, and where.

    Attributes:
        message: what happened.
        frame: frames that had been decoded before.
        time: seconds in the file; None if unknown.
        byte: position in the file; None if unknown.
    """

    message: str
    frame: int
    time: Fraction | None = None
    byte: int | None = None

    def __str__(self) -> str:
        """Return one line with the place."""
        place = [f"frame {self.frame}"]
        if self.time is not None:
            place.append(f"{float(self.time):.3f} s")
        if self.byte is not None:
            place.append(f"byte {self.byte}")
        return f"{self.message} (at {', '.join(place)})"


class WarningLog:
    """Keeps the warnings of one file, and logs one for each place.

    Args:
        name: the file, for the log.
    """

    def __init__(self, name: str) -> None:
        """Start without warnings."""
        self.warnings: list[VideoWarning] = []
        self.name = name

    def warn(
        self,
        message: str,
        frame: int,
        time: Fraction | None = None,
        byte: int | None = None,
        beside: bool = False,
    ) -> None:
        """Keep and log a warning, unless there is one at the same frame already.

        Of damage in one place, the first sign is enough; what is of another kind may stand `beside`
        it.
        """
        same_place = not beside and any(known.frame == frame for known in self.warnings[-2:])
        if len(self.warnings) > MAX_WARNINGS or same_place:
            return
        if len(self.warnings) == MAX_WARNINGS:
            message = "Further damage is not listed"
        warning = VideoWarning(message, frame, time, byte)
        self.warnings.append(warning)
        logging.getLogger(__name__).warning("%s: %s", self.name, warning)


class PendingFrame(NamedTuple):
    """A frame whose pixels are converted only when asked for.

    Attributes:
        time: seconds, as in `DecodedFrame`.
        duration: seconds until the next frame, should none follow.
        image: makes uint8 [H, W, 3].
    """

    time: Fraction
    duration: Fraction
    image: Callable[[], Image]
