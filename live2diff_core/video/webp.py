"""Frames out of animated WebP, which FFmpeg does not decode: Pillow does."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from .container import Source, TrimWindow, name_of
from .frame import Image, PendingFrame, VideoError, VideoInfo, WarningLog
from .pictures import PICTURE_ERRORS, rgb_of

_MILLISECOND = Fraction(1, 1000)
# Browsers show frames of up to 10 ms for 100: many files mean nothing by their zeros.
_SHORTEST, _USUAL = 10, 100


class WebpSource:
    """Frames of a WebP animation or picture, each with its own duration in whole milliseconds.

    Args:
        source: file, or its bytes; the compressed bytes stay in memory.
        window: trim window.
        log: takes the warnings.

    Raises:
        VideoError: it cannot be decoded, or has no frame in the window.
    """

    def __init__(self, source: Source, window: TrimWindow, log: WarningLog) -> None:
        """Read the durations of all frames, and decode the first one."""
        self._log, self._name = log, name_of(source)
        data = source.getvalue() if isinstance(source, BytesIO) else Path(source).read_bytes()
        whole, durations = _parse(data)
        self._picture = self._open(whole)
        if len(whole) < len(data) or struct.unpack("<I", data[4:8])[0] + 8 > len(data):
            self._log.warn("The file is cut off", len(durations), None, len(whole))
        self._origin, stop = window.ticks(_MILLISECOND)
        times = [sum(durations[:index]) for index in range(len(durations))]
        self._spans = [
            (index, time, duration)
            for index, (time, duration) in enumerate(zip(times, durations, strict=True))
            if time >= self._origin and (stop is None or time < stop)
        ]
        if not self._spans:
            self.close()
            raise VideoError(
                f"{self._name} has no frames in the part that was asked for. It is "
                f"{sum(durations) / 1000:.3f} s long."
            )
        images = self._decode()
        first = next(images, None)
        if first is None:
            self.close()
            raise VideoError(f"{self._name}: not one frame of its WebP animation decodes.")
        self._images = chain([first], images)
        self.info = self._info()

    def close(self) -> None:
        """Let go of the bytes."""
        self._picture.close()

    def frames(self) -> Iterator[PendingFrame]:
        """Frames in the trim window, in order of time."""
        for (_, time, duration), image in zip(self._spans, self._images, strict=False):
            moment = (time - self._origin) * _MILLISECOND
            yield PendingFrame(moment, duration * _MILLISECOND, partial(np.asarray, image))

    def _open(self, data: bytes) -> Pillow.Image:
        try:
            picture = Pillow.open(BytesIO(data))
            picture.load()
        except PICTURE_ERRORS as error:
            raise VideoError(f"{self._name} is a WebP file that does not decode.") from error
        return picture

    def _info(self) -> VideoInfo:
        total = sum(duration for _, _, duration in self._spans)
        return VideoInfo(
            width=self._picture.width,
            height=self._picture.height,
            frame_rate=Fraction(1000 * len(self._spans), total),
            time_base=_MILLISECOND,
            frame_count=len(self._spans),
            rotation=0,
            sample_aspect_ratio=Fraction(1),
            codec="webp",
        )

    def _decode(self) -> Iterator[Image]:
        """Images of the spans; each frame builds on the one before, so damage ends the video."""
        for shown, (index, time, _) in enumerate(self._spans):
            try:
                self._picture.seek(index)
                image = rgb_of(self._picture)
            except PICTURE_ERRORS as error:
                moment = (time - self._origin) * _MILLISECOND
                self._log.warn(f"The animation does not decode further ({error})", shown, moment)
                return
            yield image


def _parse(data: bytes) -> tuple[bytes, list[int]]:
    """Cut a file after its last complete chunk, and list its frames' durations in milliseconds.

    libwebp refuses an animation whose last frame is cut off; without that frame it takes it. A
    still picture is one frame of the usual duration.
    """
    durations, position = [], 12
    while position + 8 <= len(data):
        kind, size = struct.unpack("<4sI", data[position : position + 8])
        end = position + 8 + size + size % 2
        if end > len(data):
            break
        if kind == b"ANMF" and size >= 16:
            duration = int.from_bytes(data[position + 20 : position + 23], "little")
            durations.append(duration if duration > _SHORTEST else _USUAL)
        position = end
    if not durations:
        return data, [_USUAL]
    return b"RIFF" + struct.pack("<I", position - 8) + data[8:position], durations
