"""Threads that run beside a stream, at most a few calls ahead of it or behind it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import torch

Item = TypeVar("Item")
Worker = TypeVar("Worker", bound="_Worker")
_END: Any = object()


class _Worker:
    """A thread that runs calls in order."""

    def __init__(self, name: str, ahead: int) -> None:
        self._executor = ThreadPoolExecutor(
            max_workers=1, initializer=lambda: setattr(threading.current_thread(), "name", name)
        )
        self._pending: deque[Future[Any]] = deque()
        self._ahead, self.busy_seconds = ahead, 0.0

    def __enter__(self: Worker) -> Worker:
        return self

    def _append(self, call: Callable[[], object]) -> Future[Any]:
        previous = self._pending[-1] if self._pending else None
        self._pending.append(self._executor.submit(self._run, call, previous))
        return self._pending[-1]

    def _run(self, call: Callable[[], object], previous: Future[Any] | None) -> object:
        if previous is not None:
            previous.result()  # Raises the error of a failed call in all calls after it.
        start = time.perf_counter()
        try:
            # Inference mode is per thread; without it, this thread cannot use the nodes' tensors.
            with torch.inference_mode():
                return call()
        finally:
            self.busy_seconds += time.perf_counter() - start


class Prefetch(_Worker, Generic[Item]):
    """Runs the iterator `source` in a thread, with up to `ahead` (at least 1) items waiting.

    It is a context manager whose exit stops the thread after the current item. An error of the
    iterator is raised in place of the failed item.
    """

    def __init__(self, source: Iterator[Item], ahead: int) -> None:
        """Start the thread."""
        super().__init__("live2diff-decode", ahead)
        self._next = lambda: next(source, _END)
        for _ in range(ahead):
            self._append(self._next)

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Item]:
        while (item := self._pending.popleft().result()) is not _END:
            self._append(self._next)
            yield item


class BackgroundCalls(_Worker):
    """Runs calls in a thread, with up to `ahead` of them waiting; `submit` blocks beyond that.

    It is a context manager whose exit runs the waiting calls, and raises their error unless the
    block raised one. After a failed call no other runs; `submit` and `wait` raise its error.
    """

    def __init__(self, ahead: int) -> None:
        """Start without calls."""
        super().__init__("live2diff-encode", ahead)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._executor.shutdown()
        if kind is None:
            self.wait()

    def submit(self, call: Callable[[], object]) -> Future[Any]:
        """Run `call` after the earlier calls; they fail together."""
        self.wait(self._ahead)
        return self._append(call)

    def wait(self, remaining: int = 0) -> None:
        """Return when at most `remaining` calls have not run."""
        while self._pending and (len(self._pending) > remaining or self._pending[0].done()):
            # A failed call stays in front, so that its error is raised every time.
            self._pending[0].result()
            self._pending.popleft()
