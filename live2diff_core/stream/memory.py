"""The temporal memories of a MODEL, and the state that each stream allocates, saves and reads.

A memory has two parts. Applied to a MODEL it is an `AppliedMemory`: its configuration and hooks,
shared by all streams. Each stream starts a `TemporalMemory` from it, which stores past features.
The hooks find the data for a call in its `CallPlan`, under the memory's name.

To add a memory, write one file with both parts and one node that calls `add_memory`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .call_plan import OpenedShape, PackedIntegers, TemporalMemory
from .state import StateError, join, part

ATTACHMENT = "live2diff_memories"


@dataclass(frozen=True)
class StreamShape:
    """The numbers that determine the size of a stream's memory.

    Attributes:
        latent_size: (h, w), an eighth of the frame's height and width.
        passes: number of denoising steps at which a conditioning runs, summed over all.
        bytes_per_value: 2 in float16 and bfloat16, 4 in float32.
    """

    latent_size: tuple[int, int]
    passes: int
    bytes_per_value: int

    def tokens(self, level: int) -> int:
        """Return HW of a UNet level."""
        return tokens_at(self.latent_size, level)


def tokens_at(latent_size: tuple[int, int], level: int) -> int:
    """Return HW of a UNet level for latents of (h, w); each downsampler halves and rounds up."""
    height, width = latent_size
    return math.ceil(height / 2**level) * math.ceil(width / 2**level)


class AppliedMemory(Protocol):
    """A temporal memory on a MODEL."""

    @property
    def name(self) -> str:
        """The key of its part of a CallPlan, of its state and of its hooks."""
        ...

    @property
    def title(self) -> str:
        """The name of its node, for messages."""
        ...

    @property
    def largest_group(self) -> int:
        """The largest number of frames that it needs in one call."""
        ...

    @property
    def depth_encoder(self) -> Callable[[Tensor], Tensor] | None:
        """Maps depth latents [F, 4, h, w] to features for the UNet's first layer, or is None."""
        ...

    def start(self, steps: Mapping[str, int], seed: int) -> TemporalMemory:
        """Start the memory of a stream.

        Args:
            steps: number of denoising steps at which each kind of conditioning runs, by kind.
            seed: the stream's seed.
        """
        ...

    def open(self, memory: Any, shape: OpenedShape) -> None:
        """Allocate a stream's memory, which `start` made, once the MODEL's weights are loaded.

        What the memory holds already stays: it is called once per run of a live stream.
        """
        ...

    def nbytes(self, shape: StreamShape) -> int:
        """Return the most bytes that a stream's memory holds."""
        ...

    def check(self, model: Any) -> None:
        """Refuse a MODEL that was changed after the memory was applied.

        Raises:
            UnsupportedModelError: the memory does not work with the change.
        """
        ...

    def fingerprint(self) -> dict[str, str]:
        """Name its configuration and weights by content."""
        ...


@dataclass(frozen=True)
class MemoryCall:
    """The data of one model call for the hooks of each memory, by the memory's name."""

    parts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        """Return the part of the memory called `name`."""
        return self.parts[name]

    def select(self, index: int) -> MemoryCall:
        """Return the call with only the group at its `index`-th step."""
        return MemoryCall({name: part.select(index) for name, part in self.parts.items()})

    def settle(self, bad: Tensor) -> None:
        """Tell all memories which rows came out as NaN or infinite; see `TemporalMemory.plan`."""
        for of_memory in self.parts.values():
            of_memory.settle(bad)


class MemorySet:
    """All memories of one stream, by name, as one memory."""

    def __init__(self, memories: Mapping[str, TemporalMemory]) -> None:
        """Combine at least one memory."""
        self._memories = dict(memories)

    def __getitem__(self, name: str) -> TemporalMemory:
        """Return the memory called `name`."""
        return self._memories[name]

    def group(self, frame: int) -> range:
        """Return the frames denoised together with `frame`: the largest group of any memory.

        A memory with smaller groups receives the same frames in the same order, so its result does
        not change.
        """
        return max((memory.group(frame) for memory in self._memories.values()), key=len)

    def integers(self, groups: Sequence[range], steps: range) -> list[int]:
        """List the integers of every memory."""
        return [i for m in self._memories.values() for i in m.integers(groups, steps)]

    def plan(self, groups: Sequence[range], steps: range, integers: PackedIntegers) -> MemoryCall:
        """Prepare one model call in every memory."""
        return MemoryCall(
            {name: m.plan(groups, steps, integers) for name, m in self._memories.items()}
        )

    def commit(self) -> None:
        """Keep the updates of the planned calls."""
        for memory in self._memories.values():
            memory.commit()

    def discard(self) -> None:
        """Drop the updates of the planned calls."""
        for memory in self._memories.values():
            memory.discard()

    def reset(self) -> None:
        """Reset all memories."""
        for memory in self._memories.values():
            memory.reset()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the states of all memories: `memory/name`."""
        return join(**{name: memory.state_dict() for name, memory in self._memories.items()})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the saved stream has other memories, or one of another configuration.
        """
        saved = {key.split("/", 1)[0] for key in state}
        if saved != self._memories.keys():
            raise ValueError(
                f"the saved stream remembers by {' and '.join(sorted(saved))}, this MODEL by "
                f"{' and '.join(sorted(self._memories))}."
            )
        for name, memory in self._memories.items():
            try:
                memory.load_state_dict(part(state, name))
            except StateError as error:
                raise StateError(f"in the memory {name}, {error}") from error

    def to(self, device: torch.device) -> None:
        """Move all memories."""
        for memory in self._memories.values():
            memory.to(device)

    @property
    def nbytes(self) -> int:
        """Bytes that all memories hold now."""
        return sum(memory.nbytes for memory in self._memories.values())


def applied_memories(model: Any) -> dict[str, AppliedMemory]:
    """Return the memories of a ModelPatcher by name; none for a plain MODEL."""
    return dict(model.get_attachment(ATTACHMENT) or {})


def add_memory(patched: Any, memory: AppliedMemory) -> None:
    """Add `memory` to the memories of a freshly cloned ModelPatcher."""
    patched.set_attachments(ATTACHMENT, {**applied_memories(patched), memory.name: memory})


def start_memories(model: Any, steps: Mapping[str, int], seed: int) -> MemorySet | None:
    """Start a stream's memories from those of a MODEL; None for a plain MODEL."""
    applied = applied_memories(model)
    if not applied:
        return None
    return MemorySet({name: memory.start(steps, seed) for name, memory in applied.items()})
