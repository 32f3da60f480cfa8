"""The queue of a stream's finished frames: in order, and with repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .state import StateError, floats, integer, integers, require


class OutputQueue:
    """Counts the frames that have entered, and holds the finished ones until they leave.

    Attributes:
        frames_out: number of frames that have left.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.frames_out = 0
        # For each frame in the model, how often its result will leave: once plus its repeats.
        self._due: list[int] = []
        self._finished: list[Tensor] = []
        self._last: Tensor | None = None

    def enter(self) -> None:
        """Count a frame that enters the model."""
        self._due.append(1)

    def repeat(self) -> None:
        """Count a frame whose result is that of the last frame that entered."""
        if self._due:
            self._due[-1] += 1
        else:
            assert self._last is not None, "nothing has entered yet"
            self._finished.append(self._last)

    def leave(self, finished: Sequence[Tensor]) -> None:
        """Add x0 of frames that leave the model, in the order in which they entered."""
        for x0 in finished:
            self._finished += [x0] * self._due.pop(0)
            self._last = x0

    def take(self) -> list[Tensor]:
        """Remove and return all finished frames."""
        finished, self._finished = self._finished, []
        self.frames_out += len(finished)
        return finished

    def take_one(self) -> Tensor:
        """Remove and return the next finished frame; the queue must not be empty."""
        self.frames_out += 1
        return self._finished.pop(0)

    def __bool__(self) -> bool:
        """Return whether any frame is finished."""
        return bool(self._finished)

    def state_dict(self) -> dict[str, Tensor]:
        """Return counts and finished frames by name; tensors are not copied."""
        last = {} if self._last is None else {"last": self._last}
        return {
            "frames_out": torch.tensor(self.frames_out),
            "due": torch.tensor(self._due, dtype=torch.int64),
            **{f"finished.{index}": x0 for index, x0 in enumerate(self._finished)},
            **last,
        }

    @classmethod
    def check_state(cls, state: Mapping[str, Tensor], shape: Sequence[int]) -> OutputQueue:
        """Check what `state_dict` returned, for latents of `shape`; return it as a queue.

        Raises:
            StateError: it is damaged.
        """
        frames_out, due = integer(state, "frames_out"), integers(state, "due")
        require(all(due), f"'due' should be numbers above 0, but is {due}")
        names = [name for name in state if name.startswith("finished.")]
        for index in range(len(names)):
            floats(state, f"finished.{index}", *shape)
        if "last" in state:
            floats(state, "last", *shape)
        if ("last" in state) != bool(frames_out or names):
            raise StateError(f"'last' does not go with {frames_out} frames that have left")
        return cls.from_state_dict(state)

    @property
    def frames_in(self) -> int:
        """Number of frames that have entered so far, with repeats."""
        return self.frames_out + len(self._finished) + sum(self._due)

    @property
    def inside(self) -> int:
        """Number of frames in the model."""
        return len(self._due)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> OutputQueue:
        """Restore a queue from its `state_dict`, on `device` or the state's own device."""
        queue = cls()
        queue.frames_out = int(state["frames_out"])
        queue._due = state["due"].tolist()
        finished = sum(name.startswith("finished.") for name in state)
        queue._finished = [state[f"finished.{index}"].to(device) for index in range(finished)]
        queue._last = state["last"].to(device) if "last" in state else None
        return queue
