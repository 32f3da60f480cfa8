"""The videos of a folder, in the order in which a person would count them.

A video is a file, or a folder of numbered pictures.

Standard library only: shared by the node Video From Folder and the command queue_folder.
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

# Patterns are separated by semicolons, which, unlike commas and spaces, hardly occur in names.
SEPARATOR = ";"
VIDEO_PATTERN = "*.mp4;*.mov;*.mkv;*.webm;*.avi;*.m4v;*.mpg;*.ts;*.gif"
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")

_NUMBER = re.compile(r"(\d+)")


def list_videos(
    folder: Path,
    pattern: str = VIDEO_PATTERN,
    recursive: bool = False,
    on_error: Callable[[OSError], object] | None = None,
) -> list[Path]:
    """List files of `folder` whose name matches, relative to it, in natural order.

    Args:
        folder: where to look.
        pattern: globs for the file's name, separated by semicolons; upper and lower case are one.
        recursive: look into subfolders too. Links to folders are not followed, so that a loop of
            them has an end.
        on_error: called with the error of each folder that cannot be read; None: they are left out.

    Hidden files and folders are left out: among them are the shadow files macOS writes beside
    videos, which have the same endings.
    """
    globs = [glob.strip().lower() for glob in pattern.split(SEPARATOR) if glob.strip()]
    found = []
    for place, folders, files in os.walk(folder, onerror=on_error):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        found += [
            Path(place, name).relative_to(folder)
            for name in files
            if not name.startswith(".")
            and any(fnmatch.fnmatchcase(name.lower(), glob) for glob in globs)
        ]
    return sorted(found, key=_natural_key)


def list_sequences(folder: Path, recursive: bool = False) -> list[Path]:
    """List subfolders of `folder` that hold numbered pictures, relative to it, in natural order.

    Args:
        folder: where to look; what it holds itself does not count.
        recursive: look into all subfolders, not only those directly in `folder`. Links to folders
            are not followed.
    """
    found = []
    for place, folders, files in os.walk(folder):
        path = Path(place)
        inside = [] if path != folder and not recursive else folders
        folders[:] = [name for name in inside if not name.startswith(".")]
        if path != folder and is_sequence(files):
            found.append(path.relative_to(folder))
    return sorted(found, key=_natural_key)


def list_videos_and_sequences(folder: Path, pattern: str, recursive: bool = False) -> list[Path]:
    """List files and folders that are one video each, relative to `folder`, in natural order.

    If there are none, but `folder` itself holds numbered pictures, it is the one video: `Path()`.
    """
    found = [*list_videos(folder, pattern, recursive), *list_sequences(folder, recursive)]
    if not found and is_sequence(picture_names(folder)):
        return [Path()]
    return sorted(found, key=_natural_key)


def picture_names(folder: Path) -> list[str]:
    """List names of pictures directly in `folder`, in natural order; leave out hidden ones."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if _is_picture(entry.name) and entry.is_file()]
    return sorted(names, key=lambda name: _natural_key(Path(name)))


def is_sequence(names: Iterable[str]) -> bool:
    """Return whether the pictures among `names` are the frames of one video.

    They are if there is one at least, and the last number in the name is all that differs: neither
    a collection of pictures nor a single one without a number is a video.
    """
    parts = [_NUMBER.split(name.lower()) for name in names if _is_picture(name)]
    fixed = {(*pieces[:-2], pieces[-1]) for pieces in parts}
    return len(fixed) == 1 and len(parts[0]) > 1


def _is_picture(name: str) -> bool:
    return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith(".")


def folder_inside(base: Path, folder: str) -> Path:
    """Return the real path of `folder`, which is relative to `base`.

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
    """Return the real path of `path`.

    Raises:
        ValueError: it is outside `base`, through a link or otherwise.
    """
    real, root = path.resolve(), base.resolve()
    if not real.is_relative_to(root):
        raise ValueError(f"{path} leads out of {base}, to {real}; only files inside may be read")
    return real


def _natural_key(path: Path) -> tuple[list[tuple[tuple[int, int | str], ...]], str]:
    """Return the key that sorts clip2 before clip10; the plain text decides between 1 and 01."""
    parts = [_NUMBER.split(part.casefold()) for part in path.parts]
    keys = [
        tuple((0, int(piece)) if at % 2 else (1, piece) for at, piece in enumerate(pieces) if piece)
        for pieces in parts
    ]
    return keys, path.as_posix()
