"""What can go wrong with video files, in the user's words."""

from __future__ import annotations

from pathlib import Path


class VideoError(Exception):
    """A video that cannot be read or written. The message says what was found and what to do."""


class VideoWriteError(VideoError):
    """Writing stopped. What was committed before is complete and stays.

    Attributes:
        frames_safe: frames in complete segments.
        folder: where they are.
    """

    def __init__(self, message: str, frames_safe: int, folder: Path) -> None:
        """Say what happened, how many frames are safe, and where."""
        super().__init__(f"{message} {frames_safe} frames are safe in {folder}.")
        self.frames_safe = frames_safe
        self.folder = folder


class DiskFullError(VideoWriteError):
    """No space left, or a quota or size limit reached, while writing."""
