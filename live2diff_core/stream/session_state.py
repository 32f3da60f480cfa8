"""Checks the saved state of a session, as far as it can be checked without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile

import torch
from torch import Tensor

from .output_queue import OutputQueue
from .pipeline import FrameInFlight
from .state import floats, integers, part, require


@dataclass(frozen=True)
class SessionState:
    """What a session's state says; see `StreamSession`.

    Attributes:
        frames_in, shown: frames that have entered, and those of them since the memory's reset that
            were no repeats.
        ended: whether the stream has been drained.
        frames_out: frames that have left.
        shape: [C, h, w] of the latents; None before the first.
        with_depth: whether they come with depth; None before the first.
        inside: frames that wait for their group, and those in flight.
    """

    frames_in: int
    shown: int
    ended: bool
    frames_out: int
    shape: torch.Size | None
    with_depth: bool | None
    inside: list[FrameInFlight]


def read_session(state: Mapping[str, Tensor]) -> SessionState:
    """Read a session's state.

    Raises:
        StateError: something is missing, or does not go with the rest.
    """
    frames_in, shown, ended = integers(state, "counters", 3)
    right = shown <= frames_in and ended <= 1
    require(right, f"'counters' are {[frames_in, shown, ended]}, which cannot be")
    steps = len(floats(state, "timesteps", None))
    shape, with_depth = _shape(state, frames_in)
    waiting = _checked_frames(state, "waiting", shape or (), bool(with_depth))
    flight = _checked_frames(state, "flight", shape or (), bool(with_depth))
    output = OutputQueue.check_state(part(state, "output"), shape or ())
    require(
        output.frames_in == frames_in,
        f"{frames_in} frames have entered, but {output.frames_in} are accounted for",
    )
    inside = [*waiting, *flight]
    require(
        output.inside == len(inside),
        f"{output.inside} frames should be inside, but {len(inside)} are",
    )
    known = all(frame.frame < frames_in and frame.memory_index < shown for frame in inside)
    require(known, "a frame inside has not entered yet")
    _check_order(waiting, flight, steps)
    return SessionState(frames_in, shown, bool(ended), output.frames_out, shape, with_depth, inside)


def frames_of(
    state: Mapping[str, Tensor], place: str, device: torch.device | None = None
) -> list[FrameInFlight]:
    """Read the frames that were saved as `place`.0, `place`.1 and so on."""
    return [FrameInFlight.from_state_dict(each, device) for each in _states(state, place)]


def _shape(state: Mapping[str, Tensor], frames_in: int) -> tuple[torch.Size | None, bool | None]:
    if not frames_in and "shape" not in state:
        return None, None
    *shape, with_depth = integers(state, "shape", 4)
    require(all(shape) and with_depth <= 1, f"'shape' is {[*shape, with_depth]}, which cannot be")
    return torch.Size(shape), bool(with_depth)


def _checked_frames(
    state: Mapping[str, Tensor], place: str, shape: tuple[int, ...], with_depth: bool
) -> list[FrameInFlight]:
    states = _states(state, place)
    found = sum(len(each) for each in states)
    named = sum(name.startswith(f"{place}.") for name in state)
    require(found == named, f"of the frames '{place}', number {len(states)} is incomplete")
    return [FrameInFlight.check_state(each, shape, with_depth) for each in states]


def _states(state: Mapping[str, Tensor], place: str) -> list[dict[str, Tensor]]:
    indices = takewhile(lambda index: f"{place}.{index}.where" in state, count())
    return [
        {k.removeprefix(at): v for k, v in state.items() if k.startswith(at)}
        for at in (f"{place}.{index}." for index in indices)
    ]


def _check_order(waiting: list[FrameInFlight], flight: list[FrameInFlight], steps: int) -> None:
    """Check that frames follow one another, as a call's rows must."""
    for older, newer in (
        *zip(waiting, waiting[1:], strict=False),
        *zip(flight[1:], flight, strict=False),
    ):
        follows = newer.memory_index == older.memory_index + 1 and newer.frame > older.frame
        require(follows, f"frame {newer.frame} does not follow frame {older.frame}")
    at = [frame.step for frame in flight]
    in_line = (
        at == list(range(at[0], at[0] + len(at))) and 1 <= at[0] and at[-1] < steps if at else True
    )
    require(in_line, f"frames in flight are at the steps {at} of {steps}")
    at = [frame.step for frame in waiting]
    require(not any(at), f"frames that wait for their group are at the steps {at}")
