"""Live2Diff's memory of a stream: the attention window and one KV-cache per attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stream.call_plan import OpenedShape, PackedIntegers
from ..stream.state import integers, require
from .attention import PlacedPositions, PositionTables, WindowView
from .stream_caches import AttentionSize, StreamCaches
from .window import AttentionMode, AttentionWindow

_WINDOW = "window"


@dataclass(frozen=True)
class MotionCall:
    """The caches, windows and positions that the motion modules use during one model call.

    Attributes:
        caches: the stream's.
        view: the windows of the call's groups.
        positions: projected positions of each attention.
        tables: the tables that they come from.
    """

    caches: StreamCaches
    view: WindowView
    positions: Sequence[PlacedPositions]
    tables: PositionTables

    def select(self, index: int) -> MotionCall:
        """Return the call with only the group at its `index`-th step."""
        view = self.view.select(index)
        return MotionCall(self.caches, view, self.tables.place(view), self.tables)


class MotionMemory:
    """The state of one stream's temporal attentions.

    Args:
        window: the attention window.
        steps: T of each kind of conditioning (`positive`, `negative`), by kind.
        attentions: the temporal attentions in the UNet's order.

    Attributes:
        window: the attention window.
        caches: keys and values.
    """

    def __init__(
        self,
        window: AttentionWindow,
        steps: Mapping[str, int],
        attentions: Sequence[AttentionSize],
    ) -> None:
        """Start without caches; `open` allocates them."""
        self.window = window
        self.caches = StreamCaches(attentions, steps, window.window_size)
        self._tables: PositionTables | None = None

    def open(self, shape: OpenedShape, tables: Callable[[], PositionTables]) -> None:
        """Allocate the caches; what is cached already is kept.

        Args:
            shape: what runs.
            tables: projects the position tables; called when they are not known yet, and always
                where gradients are computed.
        """
        # In training the weights change, and gradients reach them through the tables, too.
        if shape != self.caches.shape or self._tables is None or torch.is_grad_enabled():
            self._tables = tables()
        self.caches.open(shape)

    def group(self, frame: int) -> range:
        """Return the frames denoised together with `frame`."""
        return self.window.group(frame)

    def integers(self, groups: Sequence[range], steps: range) -> list[int]:
        """List slots and positions of a call."""
        return WindowView.integers([self.window.row(group) for group in groups])

    def plan(self, groups: Sequence[range], steps: range, integers: PackedIntegers) -> MotionCall:
        """Prepare a model call in which group r of `groups` is at step r of `steps`."""
        assert self._tables is not None, "the stream has not been opened for a model"
        size = self.window.window_size
        full = all(len(self.window.visible(group)) == size for group in groups)
        view = WindowView.from_integers(steps, (len(groups), len(groups[0]), size), full, integers)
        return MotionCall(self.caches, view, self._tables.place(view), self._tables)

    def commit(self) -> None:
        """Do nothing: the slots have been written in place."""

    def discard(self) -> None:
        """Do nothing: the next call writes the same slots before any frame sees them."""

    def reset(self) -> None:
        """Forget the stream; its caches stay allocated."""
        self.caches.clear()

    def to(self, device: torch.device) -> None:
        """Move all caches to `device`; the next `open` moves them to the model's."""
        self.caches.to(device)
        self._tables = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the window and all keys and values, as `pass/attention/keys`; not copied."""
        return {_WINDOW: self._window_numbers(), **self.caches.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the saved stream has another window, or its state is damaged.
        """
        size, _, mode = integers(state, _WINDOW, 3)
        require(size > 0 and mode < len(AttentionMode), "'window' is none")
        if not torch.equal(state[_WINDOW], self._window_numbers()):
            raise ValueError(
                f"the saved stream has {_describe(state[_WINDOW])}, this one "
                f"{_describe(self._window_numbers())}."
            )
        self.caches.load_state_dict({k: v for k, v in state.items() if k != _WINDOW})

    def _window_numbers(self) -> Tensor:
        window = self.window
        mode = list(AttentionMode).index(window.attention_mode)
        return torch.tensor([window.window_size, window.warmup_frames, mode])

    @property
    def nbytes(self) -> int:
        """Bytes that all keys and values hold now."""
        return self.caches.nbytes


def _describe(window: Tensor) -> str:
    size, warmup, mode = window.tolist()
    name = list(AttentionMode)[mode].value
    return f"a window of {size} frames, {warmup} to warm up, and the attention mode {name}"
