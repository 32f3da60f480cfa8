"""Frames on their way through a live stream, and what is counted of them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]


class FrameCount:
    """What became of one sender's frames. Safe to use from threads.

    Once nothing is under way: received = shown + dropped.

    Attributes:
        received: frames that have come.
        dropped: of these, frames whose result the sender never gets.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self.received = self.dropped = 0

    def came(self) -> None:
        """Count a frame that has come."""
        with self._lock:
            self.received += 1

    def drop(self, frames: int = 1) -> None:
        """Count frames that were dropped."""
        with self._lock:
            self.dropped += frames


@dataclass(frozen=True)
class LiveFrame:
    """A frame that waits for the model, or is inside.

    Attributes:
        picture: uint8 [H, W, 3] in the stream's size.
        count: told what becomes of it.
        sequence: its number, as its sender counts.
        captured: milliseconds on the sender's clock.
        arrived: seconds on the clock of `time.perf_counter`.
        decoding: seconds that it took to decode it.
    """

    picture: Picture
    count: FrameCount = field(default_factory=FrameCount)
    sequence: int = 0
    captured: float = 0.0
    arrived: float = 0.0
    decoding: float = 0.0


@dataclass(frozen=True)
class LiveResult:
    """What a stream shows next.

    Attributes:
        picture: uint8 [H, W, 3].
        frame: the frame of which it is the result; None for one of an earlier run.
        index: its number in the stream; -1 for a frame that is shown as it came, in the warm-up.
        last: whether the stream ends with it.
    """

    picture: Picture
    frame: LiveFrame | None
    index: int
    last: bool = False

    @property
    def warming_up(self) -> bool:
        """Whether it is the frame itself."""
        return self.index < 0
