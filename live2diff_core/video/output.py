"""Files that appear under their name only when they are complete and on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import OutputContainer

from .frame import VideoError

PART = ".part"
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
SUFFIXES = tuple(_FORMATS)
_SOUND_RATE = 48_000
# Of Python, FFmpeg and PyAV.
_WRITE_ERRORS = (OSError, av.error.FFmpegError, ValueError)


class VideoWriteError(VideoError):
    """Writing stopped. What was committed before is complete and stays.

    Attributes:
        frames_safe: frames in complete segments.
        folder: where they are.
    """

    def __init__(self, message: str, frames_safe: int, folder: Path) -> None:
        """Append to `message` how many frames are safe, and where."""
        super().__init__(f"{message} {frames_safe} frames are safe in {folder}.")
        self.frames_safe = frames_safe
        self.folder = folder


class DiskFullError(VideoWriteError):
    """No space left, or a quota or size limit reached, while writing."""


class _PartFile:
    """File that FFmpeg writes to. Keeps the first error, which FFmpeg's own files may swallow.

    Args:
        path: file to create.
    """

    def __init__(self, path: Path) -> None:
        # Unbuffered: FFmpeg collects 32 KB itself, and a full disk must show in `write`.
        self._file = path.open("wb", buffering=0)
        self.seek, self.tell = self._file.seek, self._file.tell
        self.close, self.fileno = self._file.close, self._file.fileno
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        # After an error FFmpeg still closes its file; what it writes then is of no use.
        if self.error is None:
            try:
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = error
                raise
        return len(data)


class VideoOutput:
    """A container that is written beside its name, synchronised, and renamed when complete.

    Args:
        path: final name; its suffix (.mp4, .mov, .mkv) chooses the format.
        time_base_denominator: ticks per second, so that a late start is exact.
        metadata: tags of the file; any names.
        frames_safe, folder: frames that were saved before, and where, for messages of errors.

    Raises:
        DiskFullError: no space left.
        VideoWriteError: the file cannot be written for another reason.
    """

    def __init__(
        self,
        path: Path,
        metadata: Mapping[str, str],
        *,
        time_base_denominator: int,
        frames_safe: int,
        folder: Path,
    ) -> None:
        """Create the temporary file."""
        self._path, self._part = path, path.with_name(path.name + PART)
        self._safe = (frames_safe, folder)
        options = {}
        if path.suffix != ".mkv":
            # Names of tags as they are; frames at exact ticks; and edit lists too, whose usual
            # milliseconds would shift a late start. Sound that starts late counts in them as well.
            scale = min(time_base_denominator, 2**31 - 1)
            fine = scale * max(1, _SOUND_RATE // scale)
            options = {"movflags": "use_metadata_tags", "movie_timescale": str(fine)}
            options["video_track_timescale"] = str(scale)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _PartFile(self._part)
        except OSError as error:
            raise self._failure(error) from error
        self.container: OutputContainer = av.open(
            self._file, "w", format=_FORMATS[path.suffix], container_options=options
        )
        self.container.metadata.update(metadata)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Raise errors of the block as the user reads them; the caller then abandons the file.

        Raises:
            DiskFullError, VideoWriteError: as above.
        """
        try:
            yield
        except _WRITE_ERRORS as error:
            raise self._failure(self._file.error or error) from error

    def _failure(self, error: Exception) -> VideoWriteError:
        """Turn an error in writing into the one that the user reads."""
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            message = f"The disk is full: {self._path.name} cannot be written ({error.strerror})."
            return DiskFullError(message, *self._safe)
        return VideoWriteError(f"{self._path.name} cannot be written ({error}).", *self._safe)

    def commit(self) -> None:
        """Finish the file, wait for the disk, and give the file its name; only while `writing`."""
        self.container.close()
        if self._file.error is not None:
            raise self._file.error
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._part, self._path)
        sync_folder(self._path.parent)

    def abandon(self) -> None:
        """Leave nothing of the file. May be called twice."""
        # FFmpeg would still write an index into it.
        self._file.error = self._file.error or OSError("abandoned")
        try:
            self.container.close()
        except (av.error.FFmpegError, OSError):
            pass  # the file goes away in any case
        self._file.close()
        self._part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a new name survive a crash. Windows cannot open folders, and does not need it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
