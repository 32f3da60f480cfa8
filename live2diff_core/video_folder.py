"""The videos of a folder, in the order in which a person would count them.

Standard library only: shared by the node Video From Folder and the command queue_folder.
"""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

# Patterns are separated by semicolons, which, unlike commas and spaces, hardly occur in names.
SEPARATOR = ";"
VIDEO_PATTERN = "*.mp4;*.mov;*.mkv;*.webm;*.avi;*.m4v;*.mpg;*.ts;*.gif"

_NUMBER = re.compile(r"(\d+)")


def list_videos(folder: Path, pattern: str = VIDEO_PATTERN, recursive: bool = False) -> list[Path]:
    """Files of `folder` whose name matches, relative to it, in natural order.

    Args:
        folder: where to look.
        pattern: globs for the file's name, separated by semicolons; upper and lower case are one.
        recursive: look into subfolders too. Links to folders are not followed, so that a loop of
            them has an end.

    Hidden files and folders are left out: among them are the shadow files macOS writes beside
    videos, which have the same endings.
    """
    globs = [glob.strip().lower() for glob in pattern.split(SEPARATOR) if glob.strip()]
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [
            Path(place, name).relative_to(folder)
            for name in files
            if not name.startswith(".")
            and any(fnmatch.fnmatchcase(name.lower(), glob) for glob in globs)
        ]
    return sorted(found, key=_natural_key)


def folder_inside(base: Path, folder: str) -> Path:
    """Real path of `folder`, given relative to `base`.

    Raises:
        ValueError: it leads out of `base`, as text or through a link.
        FileNotFoundError: there is no such folder.
    """
    place = base / folder.strip()
    real = require_inside(base, place)
    if not real.is_dir():
        raise FileNotFoundError(f"there is no folder {folder!r} in {base}")
    return real


def require_inside(base: Path, path: Path) -> Path:
    """Real path of `path`; ValueError when it is outside `base`, through a link or otherwise."""
    real, root = path.resolve(), base.resolve()
    if not real.is_relative_to(root):
        raise ValueError(f"{path} leads out of {base}, to {real}; only files inside may be read")
    return real


def _natural_key(path: Path) -> tuple[list[tuple[tuple[int, int | str], ...]], str]:
    """Sort key: clip2 before clip10. The plain text decides between equals such as 1 and 01."""
    parts = [_NUMBER.split(part.casefold()) for part in path.parts]
    keys = [
        tuple((0, int(piece)) if at % 2 else (1, piece) for at, piece in enumerate(pieces) if piece)
        for pieces in parts
    ]
    return keys, path.as_posix()
