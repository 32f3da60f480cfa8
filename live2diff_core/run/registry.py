"""The registry of live streams, which keeps them between runs and drops idle ones.

This is the one place where the pack keeps state outside of a run.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from ..stream.byte_size import format_bytes

# Shortest time in seconds between two searches for idle streams.
_SHORTEST_WAIT = 1.0


class Held(Protocol):
    """An entry of the registry: a live stream, or the state of a saved one."""

    @property
    def name(self) -> str:
        """Its key."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes it holds now."""
        ...

    @property
    def handle(self) -> object:
        """What the host knows it by, if it does: see `_on_timer`."""
        ...


@dataclass(frozen=True)
class StreamInfo:
    """A stream's line in the list of streams."""

    name: str
    nbytes: int
    idle_seconds: float

    def __str__(self) -> str:
        """Format the line."""
        idle = f"{self.idle_seconds:.0f} s"
        if self.idle_seconds >= 120:
            idle = f"{self.idle_seconds / 60:.0f} min"
        return f"{self.name}: {format_bytes(self.nbytes)}, idle for {idle}"


@dataclass
class _Entry:
    stream: Held
    last_used: float
    max_idle: float


class StreamRegistry:
    """Named streams, safe to use from several threads.

    A timer drops streams that idle too long, because their caches take VRAM that other workflows
    need.

    Args:
        clock: returns monotonic seconds.
        timer: called with (seconds, call); makes the call after these seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        timer: Callable[[float, Callable[[], object]], object] | None = None,
    ) -> None:
        """Start empty."""
        self._clock = clock
        self._timer = timer or _start_timer
        self._lock = threading.RLock()
        self._entries: dict[str, _Entry] = {}
        self._busy: list[str] = []
        # Handles of streams that the timer dropped.
        self._retired: list[object] = []
        self._watching = False

    def put(self, stream: Held, max_idle_seconds: float = 0.0) -> None:
        """Store a stream as the most recently used one, in place of one of the same name.

        Args:
            stream: the stream to store.
            max_idle_seconds: idle time after which it is dropped; 0 keeps it.
        """
        with self._lock:
            self._entries[stream.name] = _Entry(stream, self._clock(), max_idle_seconds)
            self._watch()

    def get(self, name: str) -> Held | None:
        """Return a stream without counting this as a use; None if there is none."""
        with self._lock:
            entry = self._entries.get(name)
            return entry.stream if entry else None

    def remove(self, name: str) -> bool:
        """Remove a stream; return False if there is none of that name."""
        with self._lock:
            return self._entries.pop(name, None) is not None

    def clear(self) -> list[str]:
        """Remove all streams; return their names."""
        with self._lock:
            names = list(self._entries)
            self._entries.clear()
            return names

    @contextmanager
    def working_on(self, name: str) -> Iterator[None]:
        """Protect a stream from being dropped in a `with` block, which counts as use."""
        with self._lock:
            self._busy.append(name)
        try:
            yield
        finally:
            with self._lock:
                self._busy.remove(name)
                if name in self._entries:
                    self._entries[name].last_used = self._clock()

    def drop_idle(self) -> list[str]:
        """Drop the streams that have been idle for too long; return their names.

        To be called in the thread that runs prompts, like everything but the timer.
        """
        with self._lock:
            self._retired.clear()
            return self._drop(self._late(), "it was not used for too long")

    def _late(self) -> list[str]:
        """Find the streams that have been idle for too long."""
        now = self._clock()
        return [
            name
            for name, entry in self._entries.items()
            if 0 < entry.max_idle <= now - entry.last_used and name not in self._busy
        ]

    def make_room(self, name: str, needed: int, limit: int) -> list[str]:
        """Drop other streams, least recently used first, until all fit into `limit`.

        Args:
            name: the stream that needs the room; it stays, whatever its size.
            needed: bytes that it will hold.
            limit: bytes for all streams together; 0 is no limit.

        Returns:
            Names of the dropped streams.
        """
        with self._lock:
            others = [e for n, e in self._entries.items() if n != name and n not in self._busy]
            total = needed + sum(entry.stream.nbytes for entry in others)
            late = []
            for entry in sorted(others, key=lambda entry: entry.last_used):
                if not limit or total <= limit:
                    break
                late.append(entry.stream.name)
                total -= entry.stream.nbytes
            return self._drop(late, f"all streams together may take {format_bytes(limit)}")

    def streams(self) -> list[StreamInfo]:
        """Describe all streams, the most recently used first."""
        with self._lock:
            entries = sorted(self._entries.values(), key=lambda e: e.last_used, reverse=True)
            now = self._clock()
            return [StreamInfo(e.stream.name, e.stream.nbytes, now - e.last_used) for e in entries]

    def _drop(self, names: list[str], reason: str) -> list[str]:
        for name in names:
            logging.info("Live2Diff: the live stream '%s' is dropped: %s.", name, reason)
            del self._entries[name]
        return names

    def _watch(self) -> None:
        """Start a timer for the stream that will be dropped first."""
        now = self._clock()
        waits = [e.last_used + e.max_idle - now for e in self._entries.values() if e.max_idle > 0]
        if self._watching or not waits:
            return
        self._watching = True
        self._timer(max(_SHORTEST_WAIT, min(waits)), self._on_timer)

    def _on_timer(self) -> None:
        with self._lock:
            self._watching = False
            late = self._late()
            # When a handle dies, it leaves the host's list of models, which only the thread that
            # runs prompts may change; without its stream, it holds no memory.
            self._retired += [self._entries[name].stream.handle for name in late]
            self._drop(late, "it was not used for too long")
            self._watch()


def _start_timer(seconds: float, call: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()
    return timer


STREAMS = StreamRegistry()
