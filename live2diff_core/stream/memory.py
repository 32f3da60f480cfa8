"""The temporal memories that a MODEL carries: what a stream of it must allocate, save and read.

A memory has two sides. Applied to a MODEL it is an `AppliedMemory`: settings and hooks, the same
for all streams. Each stream starts a `TemporalMemory` from it, which holds what is remembered. The
hooks find a call's part of that in the call's `CallPlan`, under the memory's name.

So another memory is one file with both sides and one node that calls `add_memory`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from .call_plan import TemporalMemory
from .memory_set import MemorySet

ATTACHMENT = "live2diff_memories"


@dataclass(frozen=True)
class StreamShape:
    """What the size of a stream's memory follows from.

    Attributes:
        latent_size: (h, w), an eighth of the frame's height and width.
        passes: for every conditioning the denoising steps it is run at, added up.
        bytes_per_value: 2 in float16 and bfloat16, 4 in float32.
    """

    latent_size: tuple[int, int]
    passes: int
    bytes_per_value: int

    def tokens(self, level: int) -> int:
        """HW of a UNet level; each downsampler halves and rounds up."""
        height, width = self.latent_size
        return math.ceil(height / 2**level) * math.ceil(width / 2**level)


class AppliedMemory(Protocol):
    """A memory that was put on a MODEL."""

    @property
    def name(self) -> str:
        """Key of its part of a CallPlan, of its state and of its hooks."""
        ...

    @property
    def title(self) -> str:
        """Name of its node, for messages."""
        ...

    @property
    def largest_group(self) -> int:
        """Most frames that it wants denoised in one call."""
        ...

    @property
    def depth_encoder(self) -> Callable[[Tensor], Tensor] | None:
        """[F, 4, h, w] depth latents to features for the UNet's first layer; None without."""
        ...

    def start(self, steps: Mapping[str, int], seed: int) -> TemporalMemory:
        """Start remembering a stream.

        Args:
            steps: denoising steps at which each kind of conditioning is run, by kind.
            seed: the stream's seed.
        """
        ...

    def nbytes(self, shape: StreamShape) -> int:
        """Bytes that a stream's memory takes at most."""
        ...

    def check(self, model: Any) -> None:
        """Refuse a MODEL that was changed after the memory was applied.

        Raises:
            UnsupportedModelError: it cannot work as it is.
        """
        ...

    def fingerprint(self) -> dict[str, str]:
        """Name its settings and weights by content."""
        ...


def applied_memories(model: Any) -> dict[str, AppliedMemory]:
    """Get the memories of a ModelPatcher by name; none for a plain MODEL."""
    return dict(model.get_attachment(ATTACHMENT) or {})


def add_memory(patched: Any, memory: AppliedMemory) -> None:
    """Say on a freshly cloned ModelPatcher that it carries `memory` too."""
    patched.set_attachments(ATTACHMENT, {**applied_memories(patched), memory.name: memory})


def start_memories(model: Any, steps: Mapping[str, int], seed: int) -> MemorySet | None:
    """Start a stream in all memories of a MODEL; None for a plain one."""
    applied = applied_memories(model)
    if not applied:
        return None
    return MemorySet({name: memory.start(steps, seed) for name, memory in applied.items()})
