"""Opens containers, and reads the times that they state: for the frames and for the sound."""

from __future__ import annotations

import math
import stat
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from .frame import VideoError

# Formats whose clocks start at any time. In all others, a video begins at zero.
_ARBITRARY_CLOCK = {"mpegts", "mpeg", "mpegvideo", "rtsp"}
# FFmpeg reads a text file as a picture of a terminal, and a list as the files that it names.
_NO_VIDEOS = {"tty", "bin", "hls", "dash", "concat", "sdp", "imf"}

# Frames per second where a file states none.
_FALLBACK_RATE = Fraction(24)

Source = str | Path | BytesIO


def name_of(source: Source) -> str:
    """Return the name of `source` for messages."""
    return "the video in memory" if isinstance(source, BytesIO) else str(source)


def open_container(source: Source) -> InputContainer:
    """Open a file that FFmpeg reads.

    Raises:
        VideoError: no such file, unreadable, empty, not a video, or cut off before its index.
    """
    name = name_of(source)
    head = _read_head(source)
    try:
        # Absolute, or FFmpeg takes "http:..." and "concat:..." for more than the name of a file.
        # Bytes get a position of their own, since sound is read while pictures are.
        if isinstance(source, BytesIO):
            file: str | BytesIO = BytesIO(source.getvalue())
        else:
            file = str(Path(source).resolve())
        container = av.open(file, mode="r")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        if head[4:8] == b"ftyp":
            raise VideoError(
                f"{name} is an MP4 or MOV file without an index: the recording or download was cut "
                "off. Copy it again, or repair it with a tool made for this."
            ) from error
        raise VideoError(f"{name} is not a video that FFmpeg can read ({error}).") from error
    if container.format.name in _NO_VIDEOS:
        kind = container.format.long_name
        container.close()
        raise VideoError(f"{name} is not a video: FFmpeg takes it for '{kind}'.")
    return container


def _read_head(source: Source) -> bytes:
    try:
        if isinstance(source, BytesIO):
            head = bytes(source.getbuffer()[:16])
        else:
            # To open a pipe would wait for another process for ever.
            if not stat.S_ISREG(Path(source).stat().st_mode):
                raise VideoError(f"{source} is no file, but a folder, a pipe or a device.")
            with Path(source).open("rb") as file:
                head = file.read(16)
    except FileNotFoundError as error:
        raise VideoError(f"There is no file {source}.") from error
    except OSError as error:
        raise VideoError(f"{source} cannot be read: {error.strerror}.") from error
    if not head:
        raise VideoError(f"{name_of(source)} is empty (0 bytes).")
    return head


def starts_like_webp(source: Source) -> bool:
    """Return whether the file is a WebP picture or animation, which FFmpeg reads only in part."""
    head = _read_head(source)
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """Return the first video stream that is not the cover of a piece of music.

    Raises:
        VideoError: there is none, or no decoder for it.
    """
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            raise VideoError(f"{name}: its video is of an unknown kind, or its header is damaged.")
        return stream
    found = [f"{stream.type} ({stream.codec_context.name})" for stream in container.streams.audio]
    raise VideoError(f"{name} has no video stream. It holds {', '.join(found) or 'nothing else'}.")


@dataclass(frozen=True)
class TrimWindow:
    """The part of a video that is asked for.

    Attributes:
        start: seconds to leave out at the beginning.
        duration: seconds; 0 is to the end.

    Raises:
        VideoError: one of them is negative, or not a number.
    """

    start: float = 0.0
    duration: float = 0.0

    def __post_init__(self) -> None:
        """Check that both are numbers from 0 on."""
        if not (0 <= self.start < math.inf and 0 <= self.duration < math.inf):
            raise VideoError(f"A video cannot be cut to {self.duration} s from {self.start} s.")

    def ticks(self, time_base: Fraction, begin: Fraction = Fraction(0)) -> tuple[int, int | None]:
        """Return the first tick inside and the first one behind, or None for the end of the video.

        A tick lasts `time_base` seconds. Both are rounded down, as by ComfyUI's own loader, so
        that the times of frames stay whole ticks.

        Args:
            begin: seconds on the file's clock at which the video begins.
        """
        first = begin + Fraction(self.start).limit_denominator(1_000_000)
        if not self.duration:
            return int(first // time_base), None
        stop = first + Fraction(self.duration).limit_denominator(1_000_000)
        return int(first // time_base), int(stop // time_base)


def begin_of(container: InputContainer, stream: VideoStream) -> Fraction:
    """Return the seconds on the clock of `container` at which its video begins.

    A video begins at zero, not with its first frame: one that starts after its sound keeps its
    delay. Frames before zero are kept. In formats whose clocks start at any time, a video begins
    with the first frame or sample.
    """
    own = (stream.start_time or 0) * (stream.time_base or Fraction(0))
    if container.format.name not in _ARBITRARY_CLOCK:
        return min(Fraction(0), own)
    streams = [*container.streams.video, *container.streams.audio]
    known = [(s.start_time, s.time_base) for s in streams]
    return min((start * tick for start, tick in known if start is not None and tick), default=own)


def frame_rate_of(stream: VideoStream) -> Fraction:
    """Return the average frames per second that the file states, or 24."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            return Fraction(rate)
    return _FALLBACK_RATE


def stated_end(stream: VideoStream) -> Fraction | None:
    """Return the seconds on the file's clock at which the video ends, or None if not stated."""
    if stream.duration is not None and stream.time_base is not None:
        return (stream.duration + (stream.start_time or 0)) * stream.time_base
    # Matroska: "00:00:02.400000000".
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (Fraction(part.strip("\0 ")) for part in parts)
    except ValueError:
        return None
    return hours * 3600 + minutes * 60 + seconds
