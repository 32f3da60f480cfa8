"""Stages of a stream side by side: threads with bounded queues, so that none runs away."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")
_POLL_SECONDS = 0.1


class _End:
    """Marks the end of a queue, with the error that caused it, if any."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Prefetch(Generic[Item]):
    """Runs an iterator in a thread, a few items ahead of the one who takes them.

    Use as a context manager: leaving it stops the thread. An error of the iterator is raised where
    the item it kept back would have come.

    Args:
        source: the iterator; the thread is the only one to touch it.
        ahead: items that may wait.
    """

    def __init__(self, source: Iterator[Item], ahead: int) -> None:
        """Start at once."""
        self._source = source
        self._queue: queue.Queue[Item | _End] = queue.Queue(ahead)
        self._stop = threading.Event()
        self.busy_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="live2diff-decode", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetch[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[Item]:
        """Yield the items in order."""
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _run(self) -> None:
        # Inference mode belongs to the thread: without it the nodes' tensors cannot be mixed.
        with torch.inference_mode():
            try:
                while not self._stop.is_set():
                    start = time.perf_counter()
                    item = next(self._source, None)
                    self.busy_seconds += time.perf_counter() - start
                    if item is None:
                        break
                    self._put(item)
                self._put(_End())
            except BaseException as error:  # noqa: BLE001 (handed to the one who reads)
                self._put(_End(error))

    def _put(self, item: Item | _End) -> None:
        while not self._stop.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_SECONDS)
                return


class BackgroundCalls:
    """Runs calls one after another in a thread, with a few waiting at most.

    Use as a context manager: leaving it runs what waits, unless an error is already on its way.
    After a call has failed, none runs any more, and its error is raised by the next `submit` or
    `wait`.

    Args:
        ahead: calls that may wait; `submit` blocks beyond that.
    """

    def __init__(self, ahead: int) -> None:
        """Start the thread."""
        self._queue: queue.Queue[Callable[[], object] | _End] = queue.Queue(ahead)
        self._error: BaseException | None = None
        self.busy_seconds = 0.0
        self._thread = threading.Thread(target=self._run, name="live2diff-encode", daemon=True)
        self._thread.start()

    def __enter__(self) -> BackgroundCalls:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.put(_End())
        self._thread.join()
        if error is None:
            self._raise()

    def submit(self, call: Callable[[], object]) -> None:
        """Have `call` run after those before it; blocks while too many wait."""
        self._raise()
        self._queue.put(call)

    def wait(self) -> None:
        """Return when all calls have run."""
        self._queue.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        with torch.inference_mode():
            while not isinstance(call := self._queue.get(), _End):
                start = time.perf_counter()
                try:
                    if self._error is None:
                        call()
                except BaseException as error:  # noqa: BLE001 (raised by submit or wait)
                    self._error = error
                finally:
                    self.busy_seconds += time.perf_counter() - start
                    self._queue.task_done()
