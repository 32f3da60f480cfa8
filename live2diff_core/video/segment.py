"""Segments: pieces of a video, each a complete file that says which frames it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from .output import PART

TAG = "live2diff_segment"
SUFFIX = ".mp4"


@dataclass(frozen=True)
class Segment:
    """A complete piece.

    Attributes:
        path: its file. Inside, time begins at 0: it plays by itself.
        first_frame: index of its first frame in the video.
        frames: how many it holds.
        start: seconds of its first frame in the video.
        end: seconds at which its last frame ends.
        key: size, time base and encoder settings, as text.
    """

    path: Path
    first_frame: int
    frames: int
    start: Fraction
    end: Fraction
    key: str

    @property
    def stop_frame(self) -> int:
        """Index of the first frame behind it."""
        return self.first_frame + self.frames


def segment_path(folder: Path, first_frame: int) -> Path:
    """Name of the segment that begins with `first_frame`."""
    return folder / f"segment_{first_frame:09d}{SUFFIX}"


def segment_tag(first_frame: int, start: Fraction, key: str) -> dict[str, str]:
    """Metadata of a segment's file. What is only known at its end is in the file itself."""
    return {TAG: json.dumps({"first_frame": first_frame, "start": str(start), "key": key})}


def list_segments(folder: Path) -> list[Segment]:
    """Complete segments of a folder from frame 0 on, up to the first gap. Changes nothing."""
    segments: list[Segment] = []
    for path in sorted(folder.glob(f"segment_*{SUFFIX}")):
        segment = _read(path)
        expected = segments[-1].stop_frame if segments else 0
        if segment is None or segment.first_frame != expected:
            break
        segments.append(segment)
    return segments


def drop_segments(folder: Path, keep: list[Segment]) -> None:
    """Delete every segment of `folder` that is not kept, and what a crash left of one."""
    kept = {segment.path for segment in keep}
    # From the back: interrupted in between, what is left still has no gap.
    for path in sorted(folder.glob("segment_*"), reverse=True):
        if path not in kept and path.name.endswith((SUFFIX, SUFFIX + PART)):
            path.unlink(missing_ok=True)


def _read(path: Path) -> Segment | None:
    """Read the segment of a file, or None if it is damaged or not one of ours."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            tag = json.loads(container.metadata[TAG])
            start = Fraction(tag["start"])
            if not stream.frames or stream.duration is None or stream.time_base is None:
                return None
            return Segment(
                path=path,
                first_frame=int(tag["first_frame"]),
                frames=stream.frames,
                start=start,
                end=start + stream.duration * stream.time_base,
                key=str(tag["key"]),
            )
    except (av.error.FFmpegError, OSError, LookupError, ValueError, TypeError):
        return None
