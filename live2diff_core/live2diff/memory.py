"""Live2Diff's memory of a stream: the attention window and one KV-cache per attention."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..stream.call_plan import OpenedShape, PackedIntegers
from ..stream.state import integers, require
from .attention import PlacedPositions, PositionTables, WindowView
from .stream_caches import AttentionSize, StreamCaches
from .window import AttentionMode, AttentionWindow

_WINDOW = "window"
_LOST = "lost"


@dataclass(frozen=True)
class MotionCall:
    """The caches, windows and positions that the motion modules use during one model call.

    Attributes:
        caches: the stream's.
        view: the windows of the call's groups.
        positions: projected positions of each attention.
        tables: the tables that they come from.
        lost: [R, L] bool, the memory's own list of slots to hide at the steps of the call.
    """

    caches: StreamCaches
    view: WindowView
    positions: Sequence[PlacedPositions]
    tables: PositionTables
    lost: Tensor

    def select(self, index: int) -> MotionCall:
        """Return the call with only the group at its `index`-th step."""
        view, lost = self.view.select(index), self.lost[index : index + 1]
        return MotionCall(self.caches, view, self.tables.place(view), self.tables, lost)

    def settle(self, bad: Tensor) -> None:
        """Hide the slots of `bad` rows, [N] bool, from later calls, and show those of the others.

        A call that fails never comes here: then its slots stay as they were marked before it, and
        the next try marks them.
        """
        slots = self.view.slots.flatten(1)
        self.lost.scatter_(1, slots, bad.view(slots.shape))


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
        # The slots at each step of frames that came out as NaN or infinite.
        self._lost = torch.zeros(max(steps.values()), window.window_size, dtype=torch.bool)

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
        self._lost = self._lost.to(shape.device)

    def group(self, frame: int) -> range:
        """Return the frames denoised together with `frame`."""
        return self.window.group(frame)

    def integers(self, groups: Sequence[range], steps: range) -> list[int]:
        """List slots and positions of a call."""
        return WindowView.integers([self.window.row(group) for group in groups])

    def plan(self, groups: Sequence[range], steps: range, integers: PackedIntegers) -> MotionCall:
        """Prepare a model call in which group r of `groups` is at step r of `steps`."""
        assert self._tables is not None and self.caches.shape is not None, "not opened for a model"
        size = self.window.window_size
        full = all(len(self.window.visible(group)) == size for group in groups)
        view = WindowView.from_integers(steps, (len(groups), len(groups[0]), size), full, integers)
        lost = self._lost[steps.start : steps.stop]
        # What the slots of the current frames held before is overwritten.
        others = lost.scatter(1, view.slots.flatten(1), False)[:, None, None, None]
        limits = torch.where(others, -math.inf, math.inf).to(self.caches.shape.dtype)
        view = replace(view, limits=limits)
        return MotionCall(self.caches, view, self._tables.place(view), self._tables, lost)

    def commit(self) -> None:
        """Do nothing: the slots have been written in place."""

    def discard(self) -> None:
        """Do nothing: the next call writes the same slots before any frame sees them."""

    def reset(self) -> None:
        """Forget the stream; its caches stay allocated."""
        self.caches.clear()
        self._lost = torch.zeros_like(self._lost)

    def to(self, device: torch.device) -> None:
        """Move all caches to `device`; the next `open` moves them to the model's."""
        self.caches.to(device)
        self._lost = self._lost.to(device)
        self._tables = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the window and all keys and values, as `pass/attention/keys`; not copied."""
        return {_WINDOW: self._window_numbers(), _LOST: self._lost, **self.caches.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned; earlier versions did not note lost slots.

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
        lost = state.get(_LOST)
        self._lost = torch.zeros_like(self._lost) if lost is None else lost.clone()
        others = {k: v for k, v in state.items() if k not in (_WINDOW, _LOST)}
        self.caches.load_state_dict(others)

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
