"""What a run of a video asks of the stream of pictures that it drives.

A `FrameTranslator` is one; the makers of long videos (`streamingt2v`) are others. All of them run
in `VideoRun`, which stops, resumes and saves them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..stream.state import State
from ..stream.transfer import HostCopy
from .notices import Notices


class StreamCounts(NamedTuple):
    """What a stream's state says of its frames.

    Attributes:
        frames_in: frames that have entered.
        inside: of these, frames whose pictures no call has returned.
    """

    frames_in: int
    inside: int


class OpenedModels(Protocol):
    """The models of a stream, opened for one run: a context manager that loads them."""

    def __enter__(self) -> Any:
        """Load the models."""

    def __exit__(self, *error: object) -> None:
        """Release the models."""

    @property
    def device(self) -> torch.device:
        """The device of the stream's state."""

    @property
    def state_bytes(self) -> int:
        """Bytes that one saved state takes at most."""


class PictureStream(Protocol):
    """A stream of pictures: as many come out as go in, in their order.

    Attributes:
        notices: told of what changes on the way; a run puts its own here.
        seconds: time of the calling thread so far, by stage.
    """

    notices: Notices
    seconds: dict[str, float]

    @property
    def frames_in(self) -> int:
        """Frames that have entered."""

    def open(self, opened: Any) -> None:
        """Prepare for the opened models: once per opening, before anything is pushed."""

    def push(self, opened: Any, picture: Tensor) -> list[HostCopy]:
        """Push a frame, uint8 [H, W, 3]; return finished ones.

        A frame that failed to enter leaves the stream unchanged.
        """

    def finish(self, opened: Any) -> list[HostCopy]:
        """Return finished frames that no call has returned, because of an error."""

    def drain(self, opened: Any) -> Iterator[HostCopy]:
        """End the stream and yield the frames still inside."""

    def tell_at_end(self, opened: Any) -> None:
        """Warn of what the stream's settings name and its frames did not reach."""

    def reset(self) -> None:
        """Start over with frame 0."""

    def state_dict(self) -> State:
        """Return everything that determines how the stream continues; tensors are not copied."""

    def count_state(self, state: Mapping[str, Tensor]) -> StreamCounts:
        """Check what `state_dict` returned, and say what it says of the frames.

        Raises:
            ValueError: it is damaged.
        """

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned; then open it again.

        Raises:
            ValueError: it is damaged; nothing has changed then.
        """


class PictureSpec(Protocol):
    """Describes such a stream, its models and settings."""

    def identity(self) -> dict[str, Any]:
        """Name what cannot change without starting the stream over: JSON values by title."""

    def content_identity(self) -> dict[str, Any]:
        """Name everything else that determines the result."""

    def start_translator(self, eight_bit: bool = False) -> Any:
        """Start the `PictureStream`."""

    def open(self, latent_size: tuple[int, int], frames: int | None) -> Any:
        """Return the `OpenedModels`, for latents of (h, w)."""


class FrameSize(Protocol):
    """How the frames of a video become those of a stream; `str` describes it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the stream's frames."""

    def apply(self, image: Any) -> Any:
        """Convert uint8 [H, W, 3]."""


@dataclass
class StepReport:
    """Tells whoever listens how far a call has come that takes many denoising steps.

    Attributes:
        listener: called with (steps done, steps of the call); may raise to stop it.
    """

    listener: Callable[[int, int], object] | None = None

    def __call__(self, done: int, steps: int) -> None:
        """Report that `done` of `steps` are done."""
        if self.listener is not None:
            self.listener(done, steps)
