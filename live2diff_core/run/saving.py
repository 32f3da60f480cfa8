"""Saves the states of a run: by time in the background, and at once when the run stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from ..stream.state import State
from .notices import Notices


class StateSaver:
    """Writes states in a thread of its own; the stream waits only for their copy.

    It is a context manager whose exit waits for the state that is being written.

    Args:
        write: called with (frames, state), writes it to the disk.
        seconds: least time between two states; the first is due after as long.
        notices: told of states that could not be saved.
        clock: returns monotonic seconds.
    """

    def __init__(
        self,
        write: Callable[[int, State], None],
        seconds: float,
        notices: Notices,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without a state."""
        self._write, self._seconds, self._notices = write, seconds, notices
        self._clock, self._last = clock, clock()
        self._executor = ThreadPoolExecutor(1, "live2diff-save")
        self._saving: Future[None] | None = None

    def __enter__(self) -> StateSaver:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()

    @property
    def due(self) -> bool:
        """Whether it is time for a state, and none is being written."""
        busy = self._saving is not None and not self._saving.done()
        return not busy and self._clock() - self._last >= self._seconds

    def later(self, frames: int, state: State, after: Future[Any]) -> None:
        """Copy a state, and write it when the call `after` has succeeded.

        Args:
            frames: frames that have entered.
            state: tensors, which may be changed as soon as this returns.
            after: makes the frames safe that the state speaks of.
        """
        self._last = self._clock()
        try:
            copied = _copied(state)
        except (MemoryError, RuntimeError) as error:
            self._tell(frames, error)
            return
        self._saving = self._executor.submit(self._save, frames, copied, after)

    def _tell(self, frames: int, error: Exception) -> None:
        self._notices.warn(f"The state after {frames} frames was not saved: {error}")

    def _save(self, frames: int, state: State, after: Future[Any]) -> None:
        if after.exception() is not None:
            return  # The run stops by this error.
        # Inference mode is per thread; without it, this thread cannot use the nodes' tensors.
        with torch.inference_mode():
            try:
                self._write(frames, state)
            except Exception as error:
                self._tell(frames, error)


def _copied(state: Mapping[str, Tensor]) -> State:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in state.items()}
