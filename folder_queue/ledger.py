"""The record of the finished videos: a small JSON file beside the results."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import UsageError

LEDGER_NAME = "queue_folder.ledger.json"
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

    Every change is written at once, so that a crash loses nothing.
    """

    def __init__(self, out: Path) -> None:
        """Read the ledger of the folder `out`, if any. Raises UsageError when it is damaged."""
        self._out = out
        self._path = out / LEDGER_NAME
        self._entries = self._read()

    def done(self, video: str, fingerprint: str) -> Entry | None:
        """Return a video's entry if its fingerprint and the size of its result still match."""
        entry = self._entries.get(video)
        if entry is None or entry.fingerprint != fingerprint:
            return None
        result = self._out / entry.result
        return entry if result.is_file() and result.stat().st_size == entry.size else None

    def add(self, video: str, entry: Entry) -> None:
        """Record a finished video."""
        self._entries[video] = entry
        videos = {name: asdict(each) for name, each in self._entries.items()}
        write_json(self._path, {"version": _VERSION, "videos": videos})

    def _read(self) -> dict[str, Entry]:
        if not self._path.exists():
            return {}
        try:
            data = json.loads(self._path.read_text(encoding="utf-8"))
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']}")
            return {name: Entry(**entry) for name, entry in data["videos"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"cannot read {self._path} ({error}); delete it to translate all videos anew"
            ) from error


def job_fingerprint(content: str, workflow: str) -> str:
    """Combine the hashes of a video's content and of the workflow into one."""
    return hashlib.sha256(f"{content} {workflow}".encode()).hexdigest()


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file, which is read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically: it exists as a whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
