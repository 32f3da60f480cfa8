"""Rates and times of the last seconds."""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

_SECONDS, _MOST = 2.0, 512


class Rate:
    """Events per second, over the last two. Safe to use from threads."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start without events."""
        self._clock, self._lock = clock, threading.Lock()
        self._times: deque[float] = deque(maxlen=_MOST)

    def __call__(self, events: int = 1) -> None:
        """Count events that happen now."""
        with self._lock:
            self._times.extend([self._clock()] * events)

    @property
    def value(self) -> float:
        """Events per second."""
        with self._lock:
            now = self._clock()
            recent = [when for when in self._times if now - when <= _SECONDS]
        return len(recent) / _SECONDS


class Times:
    """Durations of the last events. Safe to use from threads."""

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()
        self._values: deque[float] = deque(maxlen=_MOST)

    def __call__(self, value: float) -> None:
        """Add one."""
        with self._lock:
            self._values.append(value)

    def median(self) -> float | None:
        """Return the median; None without values."""
        values = self._sorted()
        return statistics.median(values) if values else None

    def p95(self) -> float | None:
        """Return the 95th percentile; None without values."""
        values = self._sorted()
        return values[min(int(len(values) * 0.95), len(values) - 1)] if values else None

    def _sorted(self) -> list[float]:
        with self._lock:
            return sorted(self._values)
