"""Follows a stream from the server's event loop: the newest result waits, older ones make way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..live2diff_core.live.frames import FrameCount, LiveResult
from .limits import WAITING_TEXTS


class Follower:
    """A listener of a channel whose events arrive in the event loop that makes it.

    Attributes:
        count: what became of the frames that this client sends.
        wake: set when there is something to send.
        overrun: whether the client does not read its messages.
    """

    def __init__(self) -> None:
        """Begin with nothing to send."""
        self._loop = asyncio.get_running_loop()
        self.count, self.wake = FrameCount(), asyncio.Event()
        self._result: LiveResult | None = None
        self._texts: deque[Mapping[str, Any]] = deque()
        self.overrun = False

    def show(self, result: LiveResult) -> None:
        """Take a result, in any thread."""
        self._call(self._replace, result)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Take a message, in any thread."""
        self._call(self._append, message)

    def take_result(self) -> LiveResult | None:
        """Take the newest result."""
        result, self._result = self._result, None
        return result

    def take_text(self) -> Mapping[str, Any] | None:
        """Take the oldest message."""
        return self._texts.popleft() if self._texts else None

    def is_own(self, result: LiveResult) -> bool:
        """Return whether a result is that of a frame of this client."""
        return result.frame is not None and result.frame.count is self.count

    def _call(self, call: Any, value: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, value)
        except RuntimeError:
            pass  # The server is going down, and with it everybody who follows.

    def _replace(self, result: LiveResult) -> None:
        left = self.take_result()
        if left is not None and self.is_own(left) and not left.warming_up:
            self.count.drop()
        self._result = result
        self.wake.set()

    def _append(self, message: Mapping[str, Any]) -> None:
        self.overrun = self.overrun or len(self._texts) >= WAITING_TEXTS
        if not self.overrun:
            self._texts.append(message)
        self.wake.set()
