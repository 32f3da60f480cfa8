"""Waits between tries, each longer than the one before."""

from __future__ import annotations

import time
from collections.abc import Callable

FIRST_SECONDS, FACTOR, LONGEST_SECONDS = 1.0, 2.0, 30.0


class Backoff:
    """Waits 1, 2, 4, ... and at most 30 seconds; `sleep` does the waiting."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        """Start with the shortest wait."""
        self._sleep = sleep
        self._seconds = FIRST_SECONDS

    def wait(self, at_most: float = LONGEST_SECONDS) -> None:
        """Wait, but no longer than `at_most` seconds, and make the next wait longer."""
        self._sleep(min(self._seconds, at_most))
        self._seconds = min(self._seconds * FACTOR, LONGEST_SECONDS)
