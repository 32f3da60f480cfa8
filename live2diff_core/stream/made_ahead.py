"""Random tensors that are drawn on a thread of their own, before the stream asks for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch
from torch import Tensor

from .transfer import pinned_for, upload

Key = TypeVar("Key", bound=Hashable)
THREAD = "live2diff-noise"


class MadeAhead(Generic[Key]):
    """Tensors by key, of which those that are expected next are made on a thread.

    What is made depends only on its key, so that a wrong expectation costs time, but changes
    nothing.

    Args:
        make: makes the tensor of a key, on the CPU.
    """

    def __init__(self, make: Callable[[Key], Tensor]) -> None:
        """Start without a thread; the first expectation starts it."""
        self._make = make
        self._thread: ThreadPoolExecutor | None = None
        self._expected: dict[Key, Future[Tensor]] = {}

    def take(self, key: Key, device: torch.device) -> Tensor:
        """Return the tensor of `key` on `device`; make it now unless it was expected."""
        future = self._expected.pop(key, None)
        if future is None:
            return upload(self._make(key), device)
        return upload(future.result(), device)

    def expect(self, keys: Iterable[Key], device: torch.device) -> None:
        """Begin to make the tensors of `keys`, and forget those that were expected before."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(
                1, initializer=lambda: setattr(threading.current_thread(), "name", THREAD)
            )
        before, self._expected = self._expected, {}
        for key in keys:
            if key in before:
                self._expected[key] = before.pop(key)
            else:
                self._expected[key] = self._thread.submit(self._ahead, key, device)
        for future in before.values():
            future.cancel()

    def _ahead(self, key: Key, device: torch.device) -> Tensor:
        return pinned_for(self._make(key), device)
