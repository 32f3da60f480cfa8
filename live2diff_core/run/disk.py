"""The room on the disk that a video needs, checked before the run."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..stream.byte_size import format_bytes
from ..video.encoder import Encoding
from .notices import Notices
from .partial_folder import STATES_KEPT

# Bytes per pixel of pictures kept without loss, of the kind that cameras make.
_LOSSLESS = 1.5


class DiskSpaceError(OSError):
    """The disk has no room for a video's states; the message says how much is needed."""


def check_disk(
    folder: Path,
    state_bytes: int,
    size: tuple[int, int],
    frames: int | None,
    encoding: Encoding,
    segment_frames: int,
    notices: Notices,
) -> None:
    """Refuse a run whose states cannot fit, and warn of one whose pictures may not.

    Args:
        folder: the partial folder.
        state_bytes: bytes of one saved state; 0 if none is saved.
        size: width and height of the frames.
        frames: frames of the video; None if unknown.
        encoding: how they are encoded.
        segment_frames: frames of a segment, whose pictures are kept until it is complete; 0 if they
            are not kept.
        notices: gets the warning.

    Raises:
        DiskSpaceError: the states do not fit.
    """
    free = shutil.disk_usage(folder).free
    there = sum(path.stat().st_size for path in folder.glob("state_*.safetensors"))
    # One more than are there, while it is being written; after a stop, one more is kept.
    states = max((STATES_KEPT + 1) * state_bytes - there, state_bytes)
    if states > free:
        raise DiskSpaceError(
            f"The disk of {folder} has {format_bytes(free)} free; saved states of this video take "
            f"{format_bytes(state_bytes)} each, and up to {format_bytes(states)} together. "
            "Make room, or set checkpoint_every to 0: then nothing is saved, and a run that is "
            "stopped begins anew."
        )
    pixels, count = size[0] * size[1], frames or 0
    kept = min(segment_frames, count or segment_frames) * pixels * _LOSSLESS
    # The segments, and the result that they are joined to.
    video = 2 * count * pixels * encoding.bytes_per_pixel
    if states + kept + video > free:
        notices.warn(
            f"The disk of {folder} has {format_bytes(free)} free; this video may take about "
            f"{format_bytes(int(states + kept + video))} on the way: {format_bytes(states)} for "
            f"saved states, {format_bytes(int(kept))} for pictures of the unfinished part, "
            f"{format_bytes(int(video))} for the video."
        )
