"""All folders of partial results: found, listed, removed, and kept within limits."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..host.identity import json_digest
from ..stream.byte_size import format_bytes
from ..video.segments import list_segments
from .folder_access import check_readable
from .folder_lock import PartialFolderError, holding
from .partial_folder import ABOUT, OLD_STATE, SAVED, PartialFolder
from .state_file import StateFileError, UnusableStateError, normalised, read_identity

_LOG = logging.getLogger(__name__)

PARTIAL_FOLDER = "live2diff_partial"


@dataclass(frozen=True)
class PartialInfo:
    """A folder's line in the list.

    Attributes:
        folder: the folder.
        video: name of the video; "unknown" in folders of version 0.1.0.
        frames: frames behind the newest saved state; None for a complete result.
        nbytes: bytes of all its files.
        idle_seconds: time since the last change.
        problem: why it cannot be read; the numbers are 0 then. Such a folder is left alone.
    """

    folder: PartialFolder
    video: str
    frames: int | None
    nbytes: int
    idle_seconds: float
    problem: str = ""

    def __str__(self) -> str:
        """Format the line."""
        if self.problem:
            return f"{self.folder.path.name}: {self.problem}"
        done = "complete" if self.frames is None else f"{self.frames} frames saved"
        if self.folder.states() and not self.frames:
            done = "saved by version 0.1.0"
        days = self.idle_seconds / 86400
        idle = f"{days:.0f} days" if days >= 2 else f"{self.idle_seconds / 3600:.0f} h"
        size = format_bytes(self.nbytes)
        return f"{self.folder.path.name}: {self.video}, {done}, {size}, unused for {idle}"


@dataclass(frozen=True)
class PartialLimits:
    """How long and how much is kept; 0 is without limit.

    Attributes:
        days: of a folder that no run has used.
        gigabytes: of all folders together.
    """

    days: float = 30.0
    gigabytes: float = 200.0


def folder_of(
    root: Path, identity: Mapping[str, Any], warn: Callable[[str], object] = _LOG.warning
) -> PartialFolder:
    """Return the folder of a stopped run with this identity, or that of a new one.

    Folders are named by the identity. One of version 0.1.0, which named things otherwise, is found
    by what its state says.

    Args:
        root: holds all folders.
        identity: of the run, see `VideoRun.identity`.
        warn: told of folders that may be that of the run, but cannot be read.

    Raises:
        PartialFolderError: `root` cannot be read.
    """
    check_readable(root)
    own = root / json_digest(identity)
    if own.exists():
        return PartialFolder(own, identity)
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        try:
            if _is_of_0_1_0(folder, identity):
                return PartialFolder(folder, identity)
        except UnusableStateError:
            continue  # Of another stream, or damaged.
        except (PartialFolderError, StateFileError) as error:
            warn(f"If this video was stopped by version 0.1.0, it begins anew: {error}")
    return PartialFolder(own, identity)


def _is_of_0_1_0(folder: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether version 0.1.0 stopped a run of this identity in a folder.

    Raises:
        UnusableStateError: its state is damaged.
        PartialFolderError, StateFileError: it cannot be read.
    """
    check_readable(folder)
    state = folder / OLD_STATE
    return state.exists() and read_identity(state, identity) == normalised(identity)


def list_partial(root: Path, clock: Callable[[], float] = time.time) -> list[PartialInfo]:
    """List the folders of partial results in `root`, those used last first.

    Raises:
        PartialFolderError: `root` cannot be read.
    """
    check_readable(root)
    found = [info for path in root.glob("*") if (info := _listed(path, clock())) is not None]
    return sorted(found, key=lambda info: info.idle_seconds)


def remove_partial(found: Collection[PartialInfo], reason: str) -> list[PartialInfo]:
    """Delete folders that can be read and no run holds; return those that were deleted."""
    removed = []
    for info in (info for info in found if not info.problem):
        saved = (info.folder.path / SAVED).exists()
        try:
            with holding(info.folder.path):
                info.folder.remove()
        except PartialFolderError:
            continue  # A run is at work in it.
        level = logging.INFO if saved else logging.WARNING
        logging.log(level, "Live2Diff: removed the partial result %s: %s.", info, reason)
        removed.append(info)
    return removed


def remove_saved(root: Path, used: Collection[Path]) -> list[PartialInfo]:
    """Delete the results whose prompt has ended well, but for the files in `used`."""
    saved = [
        info
        for info in list_partial(root)
        if not info.problem
        and (info.folder.path / SAVED).exists()
        and info.folder.result() not in used
    ]
    return remove_partial(saved, "it has been saved")


def apply_limits(
    root: Path,
    limits: PartialLimits,
    used: Collection[Path] = (),
    clock: Callable[[], float] = time.time,
) -> list[PartialInfo]:
    """Delete folders that are beyond the limits, those unused for longest first.

    However large it is, the folder that was used last stays: its run may be to go on.

    Args:
        root: holds them.
        limits: see there.
        used: results that must stay.
        clock: returns seconds, as files' times do.
    """
    oldest_first = [info for info in list_partial(root, clock)[::-1] if not info.problem]
    loose = [info for info in oldest_first if info.folder.result() not in used]
    late = [info for info in loose if 0 < limits.days * 86400 < info.idle_seconds]
    removed = remove_partial(late, f"it was not used for {limits.days:g} days")
    total = sum(info.nbytes for info in oldest_first if info not in removed)
    for info in (info for info in loose if info not in (*removed, oldest_first[-1])):
        if not limits.gigabytes or total <= limits.gigabytes * 1e9:
            break
        beyond = remove_partial([info], f"all together may take {limits.gigabytes:g} GB")
        removed += beyond
        total -= sum(each.nbytes for each in beyond)
    return removed


def _listed(path: Path, now: float) -> PartialInfo | None:
    """Return what is listed of a path; None for what this pack did not write."""
    if not path.is_dir() or path.is_symlink():
        return None
    try:
        check_readable(path)
        return _info(path, now) if _is_ours(path) else None
    except FileNotFoundError:
        return None  # Another server has just removed it.
    except PartialFolderError as error:
        return PartialInfo(PartialFolder(path, {}), "unknown", 0, 0, 0.0, problem=str(error))


def _is_ours(path: Path) -> bool:
    """Return whether this pack wrote a folder: nothing else is listed or deleted."""
    if (path / ABOUT).is_file() or PartialFolder(path, {}).states():
        return True
    try:
        return bool(list_segments(path))  # Version 0.1.0, stopped before its first state.
    except OSError:
        return False


def _info(path: Path, now: float) -> PartialInfo:
    folder = PartialFolder(path, {})
    stats = [file.stat() for file in path.glob("*") if file.is_file()]
    return PartialInfo(
        folder,
        _video(path / ABOUT),
        frames=None if folder.result() else folder.frames_saved,
        nbytes=sum(stat.st_size for stat in stats),
        idle_seconds=now - max((stat.st_mtime for stat in stats), default=now),
    )


def _video(about: Path) -> str:
    """Return the name of the video that a folder is about."""
    try:
        # To open a pipe would wait for another process for ever.
        text = about.read_text(encoding="utf-8") if about.is_file() else ""
        return str(json.loads(text)["video"])
    except (OSError, ValueError, LookupError, TypeError):
        return "unknown"
