"""One model call: its frames, their denoising steps, and the inputs of the UNet's hooks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .prompt_timeline import PromptTimeline
from .transfer import upload


class FeatureSizeError(ValueError):
    """The size of the UNet's features changed while a stream runs."""


@dataclass(frozen=True)
class Row:
    """One row of a model call: `frame` (index in the stream) at denoising step `step` (0..T-1).

    Prompts, masks and control images are chosen by `frame`; memories count frames by themselves.
    """

    frame: int
    step: int


@dataclass(frozen=True)
class CallPlan:
    """The rows of one model call, with their depth and memory.

    Attributes:
        rows: N rows; those of a group are adjacent, and groups are at consecutive steps.
        steps: [N] int64, the rows' steps on the model's device.
        depth: [N, C0, h, w] depth features to add after the first convolution, or None.
        memory: the result of `TemporalMemory.plan`, which the hooks read, or None.
    """

    rows: tuple[Row, ...]
    steps: Tensor
    depth: Tensor | None = None
    memory: Any = None

    def by_step(self) -> Iterator[tuple[slice, CallPlan]]:
        """Split the call into one call per denoising step, each with the slice of its rows."""
        for index, step in enumerate(dict.fromkeys(row.step for row in self.rows)):
            at_step = [i for i, row in enumerate(self.rows) if row.step == step]
            rows = slice(at_step[0], at_step[-1] + 1)
            yield (
                rows,
                CallPlan(
                    rows=self.rows[rows],
                    steps=self.steps[rows],
                    depth=None if self.depth is None else self.depth[rows],
                    memory=None if self.memory is None else self.memory.select(index),
                ),
            )


def plan_call(
    rows: Sequence[Row],
    device: torch.device,
    depth: Tensor | None = None,
    memory: TemporalMemory | None = None,
    groups: Sequence[range] = (),
) -> CallPlan:
    """Plan a call: all its integers go to the device as one tensor, without waiting.

    Args:
        rows: see `CallPlan`.
        device: the model's.
        depth: see `CallPlan`.
        memory: the stream's memory; None for none.
        groups: the memory's frames in each group of rows.
    """
    steps = range(rows[0].step, rows[0].step + len(groups))
    integers = [row.step for row in rows]
    if memory is not None:
        integers += memory.integers(groups, steps)
    packed = PackedIntegers(upload(torch.tensor(integers), device))
    at_steps = packed.take(len(rows))
    part = None if memory is None else memory.plan(groups, steps, packed)
    return CallPlan(tuple(rows), at_steps, depth, part)


class PackedIntegers:
    """Reads the integers of a call from one tensor, in the order in which they were listed."""

    def __init__(self, tensor: Tensor) -> None:
        """Begin at the first integer of `tensor`, [n] int64."""
        self._tensor, self._read = tensor, 0

    @property
    def device(self) -> torch.device:
        """The device of the integers, which is the model's."""
        return self._tensor.device

    def take(self, *shape: int) -> Tensor:
        """Return the next integers as a view of this shape."""
        start, self._read = self._read, self._read + math.prod(shape)
        return self._tensor[start : self._read].view(shape)


class Pass(NamedTuple):
    """A pass of a conditioning through the UNet: its index, and how often it ran before in a call.

    Guidance nodes run a conditioning again on a changed UNet; such passes have caches of their own.
    """

    conditioning: int
    number: int


@dataclass(frozen=True)
class OpenedShape:
    """What determines the size and kind of a stream's tensors, known once its models are open.

    Attributes:
        conditionings: name and size (h, w) of the latents of each conditioning, in order; a name
            begins with its kind and a dot.
        device: the model's.
        dtype: in which the UNet computes.
    """

    conditionings: tuple[tuple[str, tuple[int, int]], ...]
    device: torch.device
    dtype: torch.dtype

    def pass_name(self, conditioning: int, number: int) -> str:
        """Name a pass in saved streams: `positive.0.pass0`."""
        return f"{self.conditionings[conditioning][0]}.pass{number}"

    def kind(self, conditioning: int) -> str:
        """Return the kind of a conditioning, `positive` or `negative`."""
        return self.conditionings[conditioning][0].split(".")[0]


class DenoiseModel(Protocol):
    """An opened model, as the engine calls it."""

    def __call__(self, x: Tensor, plan: CallPlan) -> Tensor:
        """Predict x0 of every row.

        Args:
            x: [N, C, h, w] float32 noisy latents, variance-preserving (signal² + noise² = 1).
            plan: the rows, with their depth and memory.

        Returns:
            [N, C, h, w] float32: (x - sqrt_beta * eps) / sqrt_alpha of each row's step.
        """
        ...

    def negative(self, x: Tensor, plan: CallPlan) -> Tensor:
        """Predict x0 of every row for the negative prompt; the guidance `initialize` calls it."""
        ...

    def open_memory(self, memory: Any) -> None:
        """Allocate what `memory`, the stream's `MemorySet`, will hold for this model."""
        ...

    def encode_depth(self, depth: Tensor) -> Tensor:
        """Map depth latents [F, C, h, w] to features [F, C0, h, w] for the UNet's first layer."""
        ...

    @property
    def timelines(self) -> Sequence[PromptTimeline]:
        """The changes of the prompts, and the frames at which the memory restarts."""
        ...


class TemporalMemory(Protocol):
    """Makes a stream temporally coherent by what it stores of past frames; owned by one stream.

    A memory counts its frames from 0, and after `reset` from 0 again.
    """

    def group(self, frame: int) -> range:
        """Return the frames that must be denoised in the same calls as `frame`."""
        ...

    def integers(self, groups: Sequence[range], steps: range) -> list[int]:
        """List the integers that the hooks of a call read, for `plan`; see there."""
        ...

    def plan(self, groups: Sequence[range], steps: range, integers: PackedIntegers) -> Any:
        """Prepare a model call in which group r of `groups` is at step r of `steps`.

        Args:
            groups, steps: the frames of the groups, and their steps.
            integers: what `integers` listed, on the model's device; exactly these are taken.

        Returns:
            The object that the hooks read during the call. Its `select(index)` returns the part of
            the group at the `index`-th step. Its `settle(bad)` is called behind the model with
            [N] bool on the device, which rows came out as NaN or infinite: what they leave in the
            memory must be finite and hidden from other frames.
        """
        ...

    def commit(self) -> None:
        """Keep the updates of all calls planned since the last `commit`, which all succeeded."""
        ...

    def discard(self) -> None:
        """Drop these updates after a failed call. These or other frames may be planned next."""
        ...

    def reset(self) -> None:
        """Forget the stream."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return the memory of the stream as tensors by name."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        ...

    def to(self, device: torch.device) -> None:
        """Move everything it holds to `device`; it must be opened again before the model runs."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that the memory holds now."""
        ...
