"""Files among the results that are not finished, and where the results may go."""

from __future__ import annotations

import errno
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX, _SUFFIX = ".queue_folder-", ".part"
# A part that nothing was written to for this long belongs to a run that was killed.
_DEAD_SECONDS = 3600.0


@contextmanager
def part_beside(target: Path) -> Iterator[Path]:
    """Name a temporary file in the folder of `target`, and remove it at the end if it is there.

    No other process has the same one, and it is short enough wherever `target` is.
    """
    part = target.with_name(f"{_PREFIX}{uuid.uuid4().hex[:12]}{_SUFFIX}")
    try:
        yield part
    finally:
        with suppress(OSError):
            part.unlink()


def check_writable(target: Path) -> None:
    """Raise OSError if the file `target` cannot be written; make its folder if need be."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        reason = f"{target.parent} is no folder, or a link that leads nowhere"
        raise NotADirectoryError(errno.ENOTDIR, reason) from error
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    with part_beside(target) as part:
        part.touch(exist_ok=False)


def remove_abandoned(folder: Path) -> None:
    """Remove the parts that killed runs left in a folder of results."""
    for part in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _DEAD_SECONDS:
                part.unlink()


def real_path(path: Path) -> Path:
    """Resolve links, as `Path.resolve`, but return the path itself where they go in circles."""
    return Path(os.path.realpath(path))
