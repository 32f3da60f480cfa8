"""Checksums of the video files that a state needs: changed or exchanged ones are noticed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

# In a state: int64 [n, 2], the number and the CRC-32 of each file.
FILES = "files"
# The number of the pictures; segments have that of their first frame.
_PICTURES = -1
_CHUNK = 1 << 20


class WrittenFiles:
    """Computes the checksums of files, once for each as long as it does not change."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._known: dict[tuple[Path, int, int], int] = {}

    def numbers(self, segments: list[Path], pictures: Path) -> Tensor:
        """Return what `changed` compares: int64 [n, 2].

        Args:
            segments: complete ones.
            pictures: those of the unfinished segment; they need not exist.
        """
        rows = [[_first_frame(path), self._checksum(path)] for path in segments]
        if pictures.exists():
            rows.append([_PICTURES, self._checksum(pictures)])
        return torch.tensor(rows, dtype=torch.int64).view(-1, 2)

    def changed(
        self, state: Mapping[str, Tensor], segments: list[Path], pictures: Path
    ) -> Path | None:
        """Return the first file that is not what it was when the state was written.

        States of version 0.1.0 do not know.

        Raises:
            OSError: a file cannot be read.
        """
        written = dict(state[FILES].tolist()) if FILES in state else {}
        found = {**{_first_frame(path): path for path in segments}, _PICTURES: pictures}
        for number, path in found.items():
            if number in written and path.is_file() and self._checksum(path) != written[number]:
                return path
        return None

    def _checksum(self, path: Path) -> int:
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        if key not in self._known:
            value = 0
            with path.open("rb") as file:
                while piece := file.read(_CHUNK):
                    value = zlib.crc32(piece, value)
            self._known[key] = value
        return self._known[key]


def _first_frame(segment: Path) -> int:
    return int(segment.stem.rpartition("_")[2])
