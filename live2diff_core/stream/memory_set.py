"""All temporal memories of one stream, as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .call_plan import TemporalMemory
from .state import join, part


@dataclass(frozen=True)
class MemoryCall:
    """What the hooks of each memory read during one model call, by the memory's name."""

    parts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        """Get the part of the memory called `name`."""
        return self.parts[name]

    def select(self, index: int) -> MemoryCall:
        """Keep only the group that is at the `index`-th step of this call."""
        return MemoryCall({name: part.select(index) for name, part in self.parts.items()})


class MemorySet:
    """Memories by name; each keeps what it keeps, unaware of the others."""

    def __init__(self, memories: Mapping[str, TemporalMemory]) -> None:
        """Put at least one memory together."""
        self._memories = dict(memories)

    def __getitem__(self, name: str) -> TemporalMemory:
        """Get the memory called `name`."""
        return self._memories[name]

    def group(self, frame: int) -> range:
        """Frames denoised together with `frame`: the largest group that any memory asks for.

        A memory that asks for less sees the same frames in the same order, so nothing changes
        for it.
        """
        return max((memory.group(frame) for memory in self._memories.values()), key=len)

    def plan(self, groups: Sequence[range], steps: range, device: torch.device) -> MemoryCall:
        """Prepare one model call in every memory."""
        return MemoryCall(
            {name: m.plan(groups, steps, device) for name, m in self._memories.items()}
        )

    def commit(self) -> None:
        """Keep what the planned calls brought."""
        for memory in self._memories.values():
            memory.commit()

    def discard(self) -> None:
        """Drop what the planned calls brought."""
        for memory in self._memories.values():
            memory.discard()

    def reset(self) -> None:
        """Forget the stream."""
        for memory in self._memories.values():
            memory.reset()

    def state_dict(self) -> dict[str, Tensor]:
        """What all remember: `memory/name`."""
        return join(**{name: memory.state_dict() for name, memory in self._memories.items()})

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave.

        Raises:
            ValueError: the saved stream has other memories, or one of other settings.
        """
        saved = {key.split("/", 1)[0] for key in state}
        if saved != self._memories.keys():
            raise ValueError(
                f"the saved stream remembers by {' and '.join(sorted(saved))}, this MODEL by "
                f"{' and '.join(sorted(self._memories))}."
            )
        for name, memory in self._memories.items():
            memory.load_state_dict(part(state, name))

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(memory.nbytes for memory in self._memories.values())
