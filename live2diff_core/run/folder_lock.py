"""One run at a time uses a folder of partial results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


class PartialFolderError(ValueError):
    """A folder of partial results cannot be used; the message says which one and what to do."""


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the folder `path` against other runs, by a lock that a dead process does not keep.

    Raises:
        PartialFolderError: another run holds it, or the lock cannot be made.
    """
    place = path.with_name(f".{path.name}.lock")
    lock = FileLock(place, timeout=0)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise PartialFolderError(
            f"Another run is translating the same video with the same inputs, in {path}. Wait for "
            "it to end; queued again then, the result is found at once."
        ) from error
    except OSError as error:
        raise PartialFolderError(
            f"The folder of partial results {path.parent} cannot be written ({error.strerror}). "
            "Let ComfyUI write it, then run it again."
        ) from error
    try:
        yield
    finally:
        # Before it is let go, or another run could lock a file without a name. Windows refuses.
        if not path.exists():
            with suppress(OSError):
                place.unlink()
        lock.release()
