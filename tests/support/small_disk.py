"""Disks that a test can fill: a small tmpfs where mounting is allowed, or a limit of file sizes."""

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest


class SmallDisk:
    """A file system that another program may fill up at any time.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path):
        self.path, self._filler = path, path / "filler"

    def fill(self, leave=0):
        """Take all room but about `leave` bytes, while others write, too."""
        self.free()
        with self._filler.open("wb") as file:
            size = 0
            while (room := shutil.disk_usage(self.path).free - leave) > 0:
                with suppress(OSError):
                    os.posix_fallocate(file.fileno(), size, room)
                    size += room

    def free(self):
        """Make room again."""
        self._filler.unlink(missing_ok=True)


class FileLimit:
    """Lets a process write no file beyond a size, which it sees as a disk that is full.

    Its own log must be no file.
    """

    def __init__(self, process_id):
        self._process_id = process_id

    def fill(self, leave=0):
        """Let no file become longer than `leave` bytes."""
        self._limit(leave)

    def free(self):
        """Let files be of any size."""
        import resource

        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size):
        import resource

        _, hard = resource.prlimit(self._process_id, resource.RLIMIT_FSIZE)
        resource.prlimit(self._process_id, resource.RLIMIT_FSIZE, (size, hard))


@contextmanager
def small_disk(path: Path, megabytes: int):
    """Mount a tmpfs at `path`, always unmounted; yields None where that is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    if shutil.which("mount") is None:
        yield None
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "live2diff-tests", str(path)]
    if subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: what still has a file open there shall not keep it.
        subprocess.run(["umount", "-l", str(path)], check=True)


def need(disk):
    """Skip the test where no disk could be mounted."""
    if disk is None:
        pytest.skip("a tmpfs cannot be mounted here")
    return disk
