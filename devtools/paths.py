"""The folders of the tools: the checkout, and one folder in the user's cache."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from devtools.console import ToolError, say

REPO = Path(__file__).resolve().parent.parent
APP_NAME = "comfyui-live2diff"


def user_cache_root(platform: str, env: dict[str, str], home: Path) -> Path:
    """Return the operating system's folder for caches. `platform` is `sys.platform`."""
    if platform == "win32":
        return Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if platform == "darwin":
        return home / "Library" / "Caches"
    return Path(env.get("XDG_CACHE_HOME") or home / ".cache")


def cache_dir() -> Path:
    """Return our cache folder, made if missing. The variable LIVE2DIFF_CACHE overrides its path.

    Raises ToolError when the folder cannot be made.
    """
    override = os.environ.get("LIVE2DIFF_CACHE")
    root = user_cache_root(sys.platform, dict(os.environ), Path.home()) / APP_NAME
    folder = Path(override).expanduser().resolve() if override else root
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(
            f"cannot make the cache folder {folder} ({error.strerror}); "
            "set LIVE2DIFF_CACHE to a folder that can be written"
        ) from error
    return folder


def require_free_space(folder: Path, gigabytes: float, purpose: str) -> None:
    """Raise ToolError when less than `gigabytes` (10^9 bytes) are free on the disk of `folder`."""
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise ToolError(
            f"{purpose} needs about {gigabytes:.0f} GB in {folder}, but only {free:.1f} GB are "
            "free; make room, or set LIVE2DIFF_CACHE to a folder on a larger disk"
        )


def remove_tree(path: Path) -> None:
    """Delete a folder if it exists; a link is unlinked, never followed."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold an operating-system lock on `<cache>/<name>.lock`; wait while another process does.

    The system releases the lock when its holder dies, so a crash never leaves it behind.
    """
    with open(cache_dir() / f"{name}.lock", "a+b") as handle:
        if not _try_lock(handle.fileno()):
            say(f"Waiting for another run that is preparing {name} ...")
            _wait_for_lock(handle.fileno())
        try:
            yield
        finally:
            _unlock(handle.fileno())


if sys.platform == "win32":
    import msvcrt
    import time

    def _try_lock(fd: int) -> bool:
        try:
            os.lseek(fd, 0, os.SEEK_SET)
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _wait_for_lock(fd: int) -> None:
        while not _try_lock(fd):
            time.sleep(0.5)

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _wait_for_lock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_EX)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)
