"""States as flat dictionaries of tensors, in which the parts' names have prefixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

State = dict[str, Tensor]


def join(**parts: Mapping[str, Tensor]) -> State:
    """Combine the states of several parts into one: `part/name`."""
    return {f"{part}/{k}": v for part, state in parts.items() for k, v in state.items()}


def part(state: Mapping[str, Tensor], name: str) -> State:
    """Return the state of one part; empty when there is none."""
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def numbered(tensors: Sequence[Tensor]) -> State:
    """Name tensors by their indices: "0", "1", ..."""
    return {str(index): tensor for index, tensor in enumerate(tensors)}


def in_order(state: Mapping[str, Tensor]) -> list[Tensor]:
    """Return the tensors that `numbered` has named, in order."""
    return [state[str(index)] for index in range(len(state))]
