"""How much a client may send: sizes, rates, connections."""

from __future__ import annotations

import time
from collections.abc import Callable

FRAME_BYTES = 4 * 1024 * 1024
TEXT_CHARACTERS = 16_384
SIDE = 4096
FRAMES_PER_SECOND = 120
# One for every frame that is shown, and fifty others.
TEXTS_PER_SECOND = FRAMES_PER_SECOND + 50
CONNECTIONS = 64
CREDITS = WINDOW = 2
HELLO_SECONDS = 5.0
HEARTBEAT_SECONDS = 10.0
# Messages that wait for a client that does not read.
WAITING_TEXTS = 256

AS_JSON = {
    "frame_bytes": FRAME_BYTES,
    "side": SIDE,
    "frames_per_second": FRAMES_PER_SECOND,
    "texts_per_second": TEXTS_PER_SECOND,
}


class Allowance:
    """Lets so many events per second pass, and as many at once after a pause."""

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with a full second's events."""
        self._rate = self._left = float(per_second)
        self._clock, self._then = clock, clock()

    def __call__(self) -> bool:
        """Count an event; return whether it passes."""
        now = self._clock()
        self._left = min(self._rate, self._left + (now - self._then) * self._rate)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
