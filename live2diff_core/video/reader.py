"""Videos as frames, decoded one at a time, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from types import TracebackType

from .container import Source, TrimWindow, name_of, starts_like_webp
from .decoder import ContainerSource
from .frame import (
    DecodedFrame,
    FrameSource,
    PendingFrame,
    VideoError,
    VideoInfo,
    VideoWarning,
    WarningLog,
)
from .pictures import PICTURE_RATE, PictureSource, find_pictures
from .webp import WebpSource


class VideoReader:
    """Frames of a video in order, once. Made by `open_video`; a context manager and an iterator.

    Attributes:
        info: what is known of the video.
    """

    def __init__(self, source: FrameSource, log: WarningLog, name: str) -> None:
        """Read from `source`, whose warnings are in `log`."""
        self.info: VideoInfo = source.info
        self._source, self._log, self._name = source, log, name
        self._frames = self._indexed()
        self._index = 0

    @property
    def warnings(self) -> list[VideoWarning]:
        """Damage found so far, in order."""
        return self._log.warnings

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def __iter__(self) -> Iterator[DecodedFrame]:
        """Return self: a loop goes on where the last one stopped."""
        return self

    def __next__(self) -> DecodedFrame:
        """Decode the next frame."""
        frame, duration = next(self._frames)
        self._index += 1
        return DecodedFrame(self._index - 1, frame.time, duration, frame.image())

    def skip(self, index: int) -> None:
        """Go on with frame `index`, which must not lie behind.

        All frames before it are decoded, only not converted: after a seek, some files decode to
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

    def _indexed(self) -> Iterator[tuple[PendingFrame, Fraction]]:
        """Frames with their durations, each known when the next one comes."""
        held: PendingFrame | None = None
        for frame in self._source.frames():
            if held is not None:
                yield held, frame.time - held.time
            held = frame
        if held is not None:
            yield held, held.duration or 1 / self.info.frame_rate


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
        duration: seconds to read; 0 is to the end.
        frame_rate: frames per second of pictures; videos bring their own.

    Raises:
        VideoError: there is no video to read; says what was found.
    """
    window = TrimWindow(start, duration)
    log = WarningLog(name_of(source))
    pictures = None if isinstance(source, BytesIO) else find_pictures(source)
    frames: FrameSource
    if pictures is not None:
        rate = Fraction(frame_rate).limit_denominator(100_000)
        if rate <= 0:
            raise VideoError(f"Pictures cannot be shown at {frame_rate} frames per second.")
        frames = PictureSource(pictures, rate, window, log)
    elif starts_like_webp(source):
        frames = WebpSource(source, window, log)
    else:
        frames = ContainerSource(source, window, log)
    return VideoReader(frames, log, name_of(source))
