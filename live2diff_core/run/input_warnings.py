"""Passes the warnings of a video's reader on to the run that reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..video.frame import DecodedFrame, VideoWarning
from ..video.reader import VideoReader
from .notices import Notices

# Kinds of damage that are shown apart; a folder of broken pictures has one for each.
_MOST_KINDS = 4


def with_warnings(reader: VideoReader, notices: Notices) -> Iterator[DecodedFrame]:
    """Yield the frames of `reader`, whose warnings `notices` shows as they come."""
    told = 0
    try:
        for frame in reader:
            if told != len(reader.warnings):
                told = _tell(reader.warnings, notices)
            yield frame
    finally:
        _tell(reader.warnings, notices)


def _tell(warnings: Sequence[VideoWarning], notices: Notices) -> int:
    """Show each kind of damage with its first place; return how many warnings there are."""
    known = list(warnings)
    kinds: dict[str, list[VideoWarning]] = {}
    for warning in known:
        kinds.setdefault(warning.message, []).append(warning)
    for of_kind in list(kinds.values())[:_MOST_KINDS]:
        more = f", and {len(of_kind) - 1} more times" if len(of_kind) > 1 else ""
        notices.keep(f"input video: {of_kind[0]}{more}", key=f"input {of_kind[0].message}")
    if (hidden := len(kinds) - _MOST_KINDS) > 0:
        notices.keep(f"input video: {hidden} other kinds of damage are in the log", key="input")
    return len(known)
