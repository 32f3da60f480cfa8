"""Reads videos as frames, one at a time, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO

from .container import Source, TrimWindow, name_of, starts_like_webp
from .decoder import ContainerSource
from .frame import DecodedFrame, PendingFrame, VideoError, VideoInfo, WarningLog
from .pictures import PICTURE_RATE, find_pictures, open_pictures, open_webp


class VideoReader:
    """Frames of a video in order, once. Made by `open_video`; a context manager and an iterator.

    Attributes:
        info: what is known of the video.
        warnings: damage found so far, in order.
    """

    def __init__(
        self,
        info: VideoInfo,
        frames: Iterator[PendingFrame],
        log: WarningLog,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Hand out `frames`, whose warnings are in `log`; `close` closes their file."""
        self.info, self.warnings = info, log.warnings
        self._name, self._close = log.name, close
        self._frames, self._index = _with_durations(frames), 0

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Return self: a loop goes on where the last one stopped."""
        return self

    def __next__(self) -> DecodedFrame:
        """Decode the next frame."""
        frame = next(self._frames)
        self._index += 1
        return DecodedFrame(self._index - 1, frame.time, frame.duration, frame.image())

    def skip(self, index: int) -> None:
        """Go on with frame `index`, which must not have been read yet.

        All frames before it are decoded, but not converted: after a seek, some files decode to
        other pictures, and a resumed video must equal an uninterrupted one.

        Raises:
            VideoError: the video ends before.
            ValueError: the frame has been read already.
        """
        if index < self._index:
            raise ValueError(f"Frame {index} has been read: the reader is at {self._index}.")
        while self._index < index:
            if next(self._frames, None) is None:
                raise VideoError(
                    f"{self._name} ends after {self._index} frames: it cannot go on at {index}."
                )
            self._index += 1


def _with_durations(frames: Iterator[PendingFrame]) -> Iterator[PendingFrame]:
    """Let each frame last until the next one, which is decoded first to know its time."""
    held = next(frames, None)
    for frame in frames:
        assert held is not None
        yield held._replace(duration=frame.time - held.time)
        held = frame
    if held is not None:
        yield held


def open_video(
    source: Source,
    start: float = 0.0,
    duration: float = 0.0,
    *,
    frame_rate: Fraction | float = PICTURE_RATE,
) -> VideoReader:
    """Open a video of any length.

    Args:
        source: a file that FFmpeg reads, or its bytes; an animated WebP; a folder of PNG, JPEG,
            WebP, TIFF or BMP pictures; a pattern of those in one folder, such as `shot_%04d.png`
            or `shot_*.png`.
        start: seconds to leave out at the beginning.
        duration: seconds to read; 0 reads to the end.
        frame_rate: frames per second of pictures; videos bring their own.

    Raises:
        VideoError: there is no video to read; the message says what was found.
    """
    window = TrimWindow(start, duration)
    log = WarningLog(name_of(source))
    pictures = None if isinstance(source, BytesIO) else find_pictures(source)
    if pictures is not None:
        rate = Fraction(frame_rate).limit_denominator(100_000)
        if rate <= 0:
            raise VideoError(f"Pictures cannot be shown at {frame_rate} frames per second.")
        return VideoReader(*open_pictures(pictures, rate, window, log), log)
    if starts_like_webp(source):
        return VideoReader(*open_webp(source, window, log), log)
    container = ContainerSource(source, window, log)
    return VideoReader(container.info, container.frames(), log, container.close)
