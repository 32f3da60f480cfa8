"""What the run of a live stream is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..run.live import LiveStream
from .controls import Change
from .frames import LiveFrame, LiveResult
from .settings import LiveSettings


class Source(Protocol):
    """Where frames come from: it puts them into the channel's slot, in threads of its own."""

    def __enter__(self) -> Any:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """End."""

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""


class PageSource:
    """The live page, whose connections hand in frames by themselves."""

    ended = False

    def __enter__(self) -> PageSource:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""


class Recorder(Protocol):
    """Keeps what enters the model, what comes out, and what is changed."""

    def entered(self, frame: LiveFrame) -> None:
        """Keep a frame that has entered."""

    def came_out(self, result: LiveResult) -> None:
        """Keep the result of a frame."""

    def changed(self, changes: Sequence[tuple[Change, Any]]) -> None:
        """Keep the changes before the next frame, each with its encoded prompt or None."""

    def status(self) -> Mapping[str, Any]:
        """Describe it for those who follow the stream."""

    def close(self) -> None:
        """Finish the recording."""


@dataclass(frozen=True)
class LoopParts:
    """What a run is made of, beside its stream.

    Attributes:
        source: where frames come from.
        encode: encodes a prompt; None where prompts cannot be changed.
        watch: called between frames; returns whether the run should end, or raises.
        record: starts a recording of (stream, settings).
        max_idle_seconds, max_bytes: see `LiveOpening`.
    """

    source: Source
    encode: Callable[[str], Any] | None
    watch: Callable[[], bool]
    record: Callable[[LiveStream, LiveSettings], Recorder]
    max_idle_seconds: float = 0.0
    max_bytes: int = 0
