"""The videos of a training run, from a folder or a manifest, with their prompts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live2diff_core.video.folder import VIDEO_PATTERN, list_videos_and_sequences

CAPTIONS = "captions.jsonl"
_KEYS = ("video", "prompt", "depth", "source")


class ManifestError(ValueError):
    """The videos cannot be listed; the message says which line, and what is missing."""


@dataclass(frozen=True)
class TrainingVideo:
    """One video to train on.

    Attributes:
        video: the target, a file or a folder of pictures.
        prompt: its text.
        depth: its depth as a video, grey, near = white; None to estimate it.
        source: a video of the same frames whose latents are noised in its place; None for its own.
    """

    video: Path
    prompt: str
    depth: Path | None = None
    source: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The videos that it consists of."""
        return [path for path in (self.video, self.depth, self.source) if path is not None]


def list_training_videos(place: Path, caption: str | None) -> list[TrainingVideo]:
    """List the videos of a manifest, of a folder with `captions.jsonl` in it, or of a folder.

    Args:
        place: a folder, or a manifest: one JSON object a line with `video`, `prompt`, and, where
            they are, `depth` and `source`; paths start at the manifest's folder.
        caption: the prompt of videos that have none.

    Raises:
        ManifestError: there are no videos, a line is wrong, or a video has no prompt.
    """
    if place.is_dir():
        captions = place / CAPTIONS
        found = _manifest(captions, caption) if captions.is_file() else _folder(place, caption)
    elif place.is_file():
        found = _manifest(place, caption)
    else:
        raise ManifestError(f"videos: there is no folder or manifest {place}.")
    if not found:
        raise ManifestError(f"videos: {place} lists no videos.")
    return found


def _folder(folder: Path, caption: str | None) -> list[TrainingVideo]:
    names = list_videos_and_sequences(folder, VIDEO_PATTERN, recursive=True)
    if names and caption is None:
        raise ManifestError(
            f"The videos of {folder} have no prompts: write them into {folder / CAPTIONS}, or set "
            "`caption` for all of them."
        )
    return [TrainingVideo(folder / name, caption or "") for name in names]


def _manifest(path: Path, caption: str | None) -> list[TrainingVideo]:
    return [_video(path, number, entry, caption) for number, entry in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError as error:
            raise ManifestError(f"{path}, line {number}: no valid JSON ({error}).") from error


def _video(path: Path, number: int, entry: Any, caption: str | None) -> TrainingVideo:
    where = f"{path}, line {number}"
    if not isinstance(entry, dict) or not isinstance(entry.get("video"), str):
        raise ManifestError(
            f'{where}: expected an object such as {{"video": "a.mp4", "prompt": …}}.'
        )
    unknown = sorted(set(entry) - set(_KEYS))
    if unknown:
        raise ManifestError(
            f"{where}: unknown {', '.join(unknown)}. There are: {', '.join(_KEYS)}."
        )
    prompt = entry.get("prompt", caption)
    if not isinstance(prompt, str):
        raise ManifestError(f"{where}: it has no prompt. Add one, or set `caption` for all videos.")
    others: dict[str, Path | None] = {}
    for key in ("depth", "source"):
        value = entry.get(key)
        if value is not None and not isinstance(value, str):
            raise ManifestError(f"{where}: {key} is {value!r}; it must be a path.")
        others[key] = None if value is None else path.parent / value
    return TrainingVideo(path.parent / entry["video"], prompt, **others)
