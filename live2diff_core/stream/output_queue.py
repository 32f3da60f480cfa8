"""The queue of a stream's finished frames: in order, with repeats, and finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .faults import NONE, check_fault, no_fault
from .pipeline import FrameInFlight
from .state import StateError, floats, integer, integers, require


class Finished(NamedTuple):
    """A finished frame.

    Attributes:
        x0: [C, h, w]; that of the frame before where this one has a fault, and 0 where there is no
            such frame.
        fault: see `faults`.
    """

    x0: Tensor
    fault: Tensor


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
        self._finished: list[Finished] = []
        self._last: Finished | None = None

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

    def leave(self, finished: Sequence[FrameInFlight]) -> None:
        """Add frames that leave the model, in the order in which they entered."""
        for frame in finished:
            x0, bad = frame.latent, frame.fault != NONE
            x0 = x0.masked_fill(bad, 0) if self._last is None else x0.where(~bad, self._last.x0)
            shown = Finished(x0, frame.fault)
            self._finished += [shown] * self._due.pop(0)
            self._last = shown

    def take(self) -> list[Finished]:
        """Remove and return all finished frames."""
        finished, self._finished = self._finished, []
        self.frames_out += len(finished)
        return finished

    def take_one(self) -> Finished:
        """Remove and return the next finished frame; the queue must not be empty."""
        self.frames_out += 1
        return self._finished.pop(0)

    def __bool__(self) -> bool:
        """Return whether any frame is finished."""
        return bool(self._finished)

    def state_dict(self) -> dict[str, Tensor]:
        """Return counts and finished frames by name; tensors are not copied."""
        named = {f"finished.{index}": frame for index, frame in enumerate(self._finished)}
        if self._last is not None:
            named["last"] = self._last
        return {
            "frames_out": torch.tensor(self.frames_out),
            "due": torch.tensor(self._due, dtype=torch.int64),
            **{name: frame.x0 for name, frame in named.items()},
            **{f"fault.{name}": frame.fault for name, frame in named.items()},
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
        for name in (*names, "last"):
            check_fault(state, f"fault.{name}")
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
        """Restore a queue from its `state_dict`, on `device` or the state's own device.

        States of earlier versions know no faults.
        """

        def frame(name: str) -> Finished:
            x0, fault = state[name].to(device), state.get(f"fault.{name}")
            return Finished(x0, no_fault(x0.device) if fault is None else fault.to(device))

        queue = cls()
        queue.frames_out = int(state["frames_out"])
        queue._due = state["due"].tolist()
        finished = sum(name.startswith("finished.") for name in state)
        queue._finished = [frame(f"finished.{index}") for index in range(finished)]
        queue._last = frame("last") if "last" in state else None
        return queue
