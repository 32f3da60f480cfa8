"""Brings the frames of a source, whose size may change, to the one size of a stream."""

from __future__ import annotations

import threading

from ..video.frame_size import FrameSizePlan, SizeMode, plan_frame_size
from .frames import Picture


class LiveSize:
    """Scales and crops frames. The first frame decides the size where the mode depends on it.

    Later frames of another size fill that of the first. Safe to use from threads.
    """

    def __init__(self, mode: SizeMode, width: int, height: int) -> None:
        """Choose the size as Stream Video does; see `plan_frame_size`."""
        self._mode, self._target = mode, (width, height)
        self._lock = threading.Lock()
        self._plan: FrameSizePlan | None = None
        self._size: tuple[int, int] | None = None
        if mode == "fill":
            self._size = plan_frame_size(width, height, mode, width, height, "A frame").size

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height; None before the first frame where that decides."""
        return self._size

    def __call__(self, picture: Picture) -> Picture:
        """Return uint8 [H, W, 3] in the stream's size.

        Raises:
            FrameSizeError: the frame is too small or too large.
        """
        height, width = picture.shape[:2]
        with self._lock:
            if self._plan is None or self._plan.source != (width, height):
                self._plan = self._planned(width, height)
                self._size = self._plan.size
            plan = self._plan
        return plan.apply(picture)

    def _planned(self, width: int, height: int) -> FrameSizePlan:
        if self._size is None:
            return plan_frame_size(width, height, self._mode, *self._target, "The frame")
        return plan_frame_size(width, height, "fill", *self._size, "The frame")
