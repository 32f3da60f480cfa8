"""The record of the finished videos: a small JSON file beside the results."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import LedgerError
from .parts import part_beside

LEDGER_NAME, LOCK_NAME = "queue_folder.ledger.json", "queue_folder.ledger.lock"
# A ledger is written in an instant.
LOCK_SECONDS = 30.0
_VERSION = 1
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """One finished video: a hash of its source, and its result's path relative to the ledger."""

    fingerprint: str
    result: str
    size: int
    frames: int
    seconds: float


class Ledger:
    """The finished videos of one folder of results, by their path in the folder of sources.

    Every change is written at once, so that a crash loses nothing. Several processes may have the
    same folder of results: each adds its entries to what the others have written.
    """

    def __init__(self, out: Path) -> None:
        """Read the ledger of the folder `out`, if any. Raises LedgerError when it is damaged."""
        self._out = out
        self._path = out / LEDGER_NAME
        # Kept by the operating system, which takes it from a process that ends in any way.
        self._lock = FileLock(out / LOCK_NAME, timeout=LOCK_SECONDS)
        self._own: dict[str, Entry] = {}
        self._known = self._read()

    def done(self, video: str, fingerprint: str) -> Entry | None:
        """Return a video's entry if its fingerprint and the size of its result still match.

        Another run into the same folder may have added it a moment ago.
        """
        with suppress(LedgerError):
            self._known = self._read()
        entry = {**self._known, **self._own}.get(video)
        if entry is None or entry.fingerprint != fingerprint:
            return None
        with suppress(OSError, ValueError):
            found = os.stat(self._out / entry.result)
            if stat.S_ISREG(found.st_mode) and found.st_size == entry.size:
                return entry
        return None

    def add(self, video: str, entry: Entry) -> None:
        """Record a finished video, beside those that other runs have recorded.

        Raises LedgerError when that cannot be; the entry is then written with the next one.
        """
        self._own[video] = entry
        try:
            with self._locked():
                self._known = {**self._read(), **self._own}
                videos = {name: asdict(each) for name, each in self._known.items()}
                write_json(self._path, {"version": _VERSION, "videos": videos})
        except OSError as error:
            raise LedgerError(f"cannot write {self._path}: {error.strerror or error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other process read and write the ledger at the same time."""
        try:
            self._lock.acquire()
        except Timeout as error:
            path = self._lock.lock_file
            raise LedgerError(f"another process has held {path} for long") from error
        except NotImplementedError:
            # A file system without locks. One run at a time is safe on it.
            pass
        try:
            yield
        finally:
            self._lock.release()

    def _read(self) -> dict[str, Entry]:
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']}")
            return {name: _entry(each) for name, each in data["videos"].items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise LedgerError(f"cannot read {self._path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise LedgerError(
                f"cannot read {self._path} ({error}); delete it to translate all videos anew"
            ) from error


def _entry(values: Any) -> Entry:
    """Return an entry as it was written. Raises TypeError when it is none."""
    entry = Entry(**values)
    numbers = (entry.size, entry.frames, entry.seconds)
    if not (isinstance(entry.fingerprint, str) and isinstance(entry.result, str)):
        raise TypeError("an entry has no texts where they belong")
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise TypeError("an entry has no numbers where they belong")
    return entry


def job_fingerprint(content: str, workflow: str) -> str:
    """Combine the hashes of a video's content and of the workflow into one."""
    return hashlib.sha256(f"{content} {workflow}".encode()).hexdigest()


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file, which is read in pieces. Raises OSError for what is no file."""
    # To open a pipe would wait for another process for ever.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically: it exists as a whole or not at all.

    Bytes of a name that are no UTF-8, which Python holds as lone surrogates, are written as JSON's
    own escapes for those, so that the file is valid and the name is read as it was.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    with part_beside(path) as part:
        part.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(part, path)
