"""One model call: its frames, their denoising steps, and the inputs of the UNet's hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .prompt_timeline import PromptTimeline


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
        depth: [N, C0, h, w] depth features to add after the first convolution, or None.
        memory: the result of `TemporalMemory.plan`, which the hooks read, or None.
    """

    rows: tuple[Row, ...]
    depth: Tensor | None = None
    memory: Any = None

    def by_step(self) -> list[tuple[slice, CallPlan]]:
        """Split the call into one call per denoising step, each with the slice of its rows."""
        parts: list[tuple[slice, CallPlan]] = []
        for index, step in enumerate(dict.fromkeys(row.step for row in self.rows)):
            at_step = [i for i, row in enumerate(self.rows) if row.step == step]
            rows = slice(at_step[0], at_step[-1] + 1)
            plan = CallPlan(
                rows=self.rows[rows],
                depth=None if self.depth is None else self.depth[rows],
                memory=None if self.memory is None else self.memory.select(index),
            )
            parts.append((rows, plan))
        return parts


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

    def plan(self, groups: Sequence[range], steps: range, device: torch.device) -> Any:
        """Prepare a model call in which group r of `groups` is at step r of `steps`.

        Returns:
            The object that the hooks read during the call. Its `select(index)` returns the part of
            the group at the `index`-th step.
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

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that the memory holds now."""
        ...
