"""When frames are shown: their stamps, the frame rate, and the end that a file states."""

from __future__ import annotations

from fractions import Fraction

from av.video.stream import VideoStream

_FALLBACK_RATE = Fraction(24)


class FrameClock:
    """Time stamps of frames in presentation order, in ticks: from the file, strictly increasing.

    Args:
        first: ticks of the first frame, should it have no stamp.
        step: ticks per frame at the average rate.
    """

    def __init__(self, first: int, step: int) -> None:
        """Begin before the first frame."""
        self._step = step
        self._next = first
        self._last: int | None = None
        self.guessed = False

    def ticks(self, stamp: int | None) -> int:
        """Ticks of the next frame, whose stamp in the file is `stamp`."""
        ticks = self._next if stamp is None else stamp
        self.guessed |= stamp is None
        if self._last is not None:
            # By one tick: the later frames, whose stamps may be right, keep theirs.
            ticks = max(ticks, self._last + 1)
        self._last, self._next = ticks, ticks + self._step
        return ticks


def frame_rate_of(stream: VideoStream) -> Fraction:
    """Average frames per second, as far as the file tells."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            return Fraction(rate)
    return _FALLBACK_RATE


def stated_end(stream: VideoStream) -> Fraction | None:
    """Seconds on the file's clock at which the video ends, as the file says."""
    if stream.duration is not None and stream.time_base is not None:
        return (stream.duration + (stream.start_time or 0)) * stream.time_base
    # Matroska: "00:00:02.400000000".
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (Fraction(part.strip("\0 ")) for part in parts)
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds
