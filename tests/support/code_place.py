"""Finds the line of ours, of the host's or of a test's behind a call of torch."""

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
# They stand between torch and the line.
WATCHERS = ("op_log.py", "pretended_cuda.py")


class Place(NamedTuple):
    """The innermost line of our code, the host's or a test's that led to an operation."""

    whose: str
    file: str
    function: str
    line: int

    def __str__(self):
        return f"{self.file}:{self.line} in {self.function} ({self.whose})"


_KNOWN = {}


def place_of(frame):
    """Find the innermost frame that is neither Python's nor a library's."""
    while frame is not None:
        name = frame.f_code.co_filename
        owner = _KNOWN.get(name) or _KNOWN.setdefault(name, _owner(name))
        if owner[0]:
            return Place(*owner, frame.f_code.co_name, frame.f_lineno)
        frame = frame.f_back
    return Place("", "", "", 0)


def _owner(file):
    """Tell whose a file is: (ours, host, test or nobody's, its path within)."""
    path = Path(file)
    if path.name in WATCHERS or "site-packages" in path.parts or not path.is_absolute():
        return "", ""
    if path.is_relative_to(ROOT):
        inside = path.relative_to(ROOT)
        return ("test" if inside.parts[0] == "tests" else "ours"), inside.as_posix()
    for name in ("comfy", "comfy_extras"):
        if name in path.parts:
            inside = path.parts[path.parts.index(name) :]
            return "host", "/".join(inside)
    return "", ""
