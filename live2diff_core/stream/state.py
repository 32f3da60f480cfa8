"""States as flat dictionaries of tensors: parts go under a prefix and come back from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

State = dict[str, Tensor]


def join(**parts: Mapping[str, Tensor]) -> State:
    """Put the states of several parts into one: `part/name`."""
    return {f"{part}/{k}": v for part, state in parts.items() for k, v in state.items()}


def part(state: Mapping[str, Tensor], name: str) -> State:
    """Get the state of one part back; empty when there is none."""
    prefix = f"{name}/"
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def numbered(tensors: Sequence[Tensor]) -> State:
    """Name tensors by their places: "0", "1", ..."""
    return {str(index): tensor for index, tensor in enumerate(tensors)}


def in_order(state: Mapping[str, Tensor]) -> list[Tensor]:
    """Get the tensors of `numbered` back."""
    return [state[str(index)] for index in range(len(state))]
