"""A folder of numbered pictures as a VIDEO."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from typing import Any

import torch
from comfy_api.latest import Input, InputImpl, Types

from ..live2diff_core.video.pictures import PICTURE_RATE
from ..live2diff_core.video.reader import VideoReader, open_video


class PictureVideo(Input.Video):
    """Numbered pictures at a constant frame rate.

    Pictures are read only when they are needed. Stream Video reads them one by one, see
    `stream_source`; for core's nodes all frames are held in RAM, as for any VIDEO.

    Args:
        folder: a folder of pictures, as `open_video` takes it.
        frame_rate: frames per second.
        start: seconds to leave out at the beginning.
        duration: seconds; 0 is to the end.
    """

    def __init__(
        self, folder: str, frame_rate: float, start: float = 0.0, duration: float = 0.0
    ) -> None:
        """Store the arguments; nothing is read yet."""
        self.folder, self.frame_rate = folder, frame_rate
        self._start, self._duration = start, duration

    def get_components(self) -> Types.VideoComponents:
        """Read all frames: float32 [F, H, W, 3], 0..1. Unreadable pictures are left out.

        Raises:
            VideoError: no picture can be read, or none is in the trimmed part.
        """
        with self._open() as reader:
            info = reader.info
            images = torch.empty(info.frame_count, info.height, info.width, 3)
            count = 0
            for frame in reader:
                images[frame.index] = torch.from_numpy(frame.image).float() / 255
                count = frame.index + 1
        return Types.VideoComponents(images=images[:count], frame_rate=info.frame_rate)

    def save_to(self, path: str | BytesIO, *args: Any, **kwargs: Any) -> None:
        """Encode the frames as core encodes those of other nodes, with the same arguments."""
        InputImpl.VideoFromComponents(self.get_components()).save_to(path, *args, **kwargs)

    def as_trimmed(
        self,
        start_time: float | None = None,
        duration: float | None = None,
        strict_duration: bool = False,
    ) -> PictureVideo | None:
        """Return a part of this video; a negative start counts from the end.

        Returns:
            None if nothing is left, or less than `duration` if `strict_duration` is set.
        """
        whole = self.get_frame_count() / self.get_frame_rate()
        start, wanted = _seconds(start_time), _seconds(duration)
        start = max(whole + start, Fraction(0)) if start < 0 else start
        left = whole - start
        if left <= 0 or (strict_duration and left < wanted):
            return None
        if self._duration or wanted:
            wanted = min(wanted or left, left)
        begin = _seconds(self._start) + start
        return PictureVideo(self.folder, self.frame_rate, float(begin), float(wanted))

    def get_active_trim_window(self) -> tuple[float, float]:
        """Return start and duration in seconds; a duration of 0 extends to the end."""
        return self._start, self._duration

    def get_dimensions(self) -> tuple[int, int]:
        """Return width and height of the first picture, to which the others are scaled."""
        with self._open() as reader:
            return reader.info.width, reader.info.height

    def get_duration(self) -> float:
        """Return the duration in seconds."""
        return float(self.get_frame_count() / self.get_frame_rate())

    def get_frame_count(self) -> int:
        """Count the pictures, reading only the first one."""
        with self._open() as reader:
            return reader.info.frame_count or 0

    def get_frame_rate(self) -> Fraction:
        """Return the frames per second."""
        with self._open() as reader:
            return reader.info.frame_rate

    def get_container_format(self) -> str:
        """Return FFmpeg's name of the format for sequences of pictures."""
        return "image2"

    def _open(self) -> VideoReader:
        return open_video(self.folder, self._start, self._duration, frame_rate=self.frame_rate)


def _seconds(value: float | None) -> Fraction:
    """Round to an exact microsecond, so that 0.1 + 0.2 is 0.3."""
    return Fraction(value or 0).limit_denominator(1_000_000)


def stream_source(video: Input.Video) -> tuple[str | BytesIO, float]:
    """Return the source and `frame_rate` with which `open_video` reads a VIDEO frame by frame.

    Only pictures need the frame rate; files and buffers have their own, which is unknown here.
    """
    if isinstance(video, PictureVideo):
        return video.folder, video.frame_rate
    return video.get_stream_source(), PICTURE_RATE
