"""The pictures of a segment in progress, kept without loss until the segment is complete.

A segment that ends before its time would give the encoder a keyframe that an uninterrupted video
does not have. So a run that is stopped leaves the pictures themselves, and the next one encodes
them anew, within the same segment.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

from .encoder import Encoding
from .frame import Image, VideoError
from .output import sync_folder
from .pixels import frame_of

SUFFIX = ".mkv"
# Players show them at this rate; their times are kept by whoever keeps the pictures.
_RATE = Fraction(25)
_ENCODING = Encoding("lossless", preset="ultrafast")


class DamagedPicturesError(VideoError):
    """Pictures that were kept cannot be read."""


class UnfinishedPictures:
    """Writes pictures to a file from which they can be read bit for bit.

    Args:
        path: the file, which ends in .mkv; replaced.
        width, height: pixels of the images.

    Raises:
        OSError, av.error.FFmpegError: it cannot be written.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        """Create the file."""
        self.path, self.count = path, 0
        self._container = av.open(str(path), "w", format="matroska")
        ticks = 1 / _RATE
        self._stream = _ENCODING.add_stream(
            self._container, (width, height), ticks, _RATE, Fraction(1)
        )

    def write(self, image: Image) -> None:
        """Add a picture, uint8 [H, W, 3], contiguous."""
        frame = frame_of(image)
        frame.pts, frame.time_base = self.count, 1 / _RATE
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    def close(self) -> None:
        """End the file, so that it survives a crash."""
        self._container.mux(self._stream.encode(None))
        self._container.close()
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def drop(self) -> None:
        """Delete the file."""
        try:
            self._container.close()
        except (av.error.FFmpegError, OSError):
            pass  # the file goes away in any case
        self.path.unlink(missing_ok=True)


def count_pictures(path: Path, most: int | None = None) -> int:
    """Count the pictures of a file, without decoding them.

    Args:
        path: the file.
        most: stop there, so that a large file need not be read to its end.

    Returns:
        0 if the file is no video.

    Raises:
        OSError, MemoryError: it is missing or cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        return 0  # To open a pipe would wait for another process for ever.
    with path.open("rb"):
        pass
    try:
        with av.open(str(path)) as container:
            packets = (packet for packet in container.demux(video=0) if packet.size)
            return sum(1 for _ in islice(packets, most))
    except (OSError, MemoryError):
        raise
    except (av.error.FFmpegError, LookupError):
        return 0


def read_pictures(path: Path) -> Iterator[Image]:
    """Yield the pictures that were written, uint8 [H, W, 3] each.

    Raises:
        DamagedPicturesError: one of them does not decode.
        OSError, MemoryError: the file cannot be read, which does not mean that it is damaged.
    """
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    except (OSError, MemoryError):
        raise
    except av.error.FFmpegError as error:
        raise DamagedPicturesError(f"{path.name} is damaged ({error}).") from error
