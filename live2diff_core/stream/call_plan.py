"""One model call: its frames, their denoising steps, and what the UNet's hooks read."""

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
    """The rows of one model call and what goes with them.

    Attributes:
        rows: N rows; those of a group are adjacent, and groups are at consecutive steps.
        depth: [N, C0, h, w] depth features to add after the first convolution, or None.
        memory: what `TemporalMemory.plan` returned for the hooks to read, or None.
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
            plan: the rows and what goes with them.

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
        """When the prompts change, and where the memory starts over."""
        ...


class TemporalMemory(Protocol):
    """Where temporal coherence comes from; owned by one stream.

    A memory counts its frames from 0, and after `reset` from 0 again.
    """

    def group(self, frame: int) -> range:
        """Return the frames that must be denoised in the same calls as `frame`."""
        ...

    def plan(self, groups: Sequence[range], steps: range, device: torch.device) -> Any:
        """Prepare a model call in which group r of `groups` is at step r of `steps`.

        Returns:
            What the hooks read during the call. Its `select(index)` returns the same for the group
            at the `index`-th step alone.
        """
        ...

    def commit(self) -> None:
        """Keep the updates of all calls planned since the last `commit`: all succeeded."""
        ...

    def discard(self) -> None:
        """Drop these updates: a call failed. The same frames, or others, may be planned again."""
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
        """Bytes of all tensors held now."""
        ...
