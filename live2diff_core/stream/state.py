"""States as flat dictionaries of tensors, in which the parts' names have prefixes.

What comes from a file is checked before it is used: every owner of a state checks its own part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]


class StateError(ValueError):
    """A saved state is not what its owner saves; the message names the tensor."""


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
    """Return the tensors that `numbered` has named, in order.

    Raises:
        StateError: one is missing.
    """
    names = [str(index) for index in range(len(state))]
    if missing := [name for name in names if name not in state]:
        raise StateError(f"of {len(state)} numbered tensors, number {missing[0]} is missing")
    return [state[name] for name in names]


def integers(state: Mapping[str, Tensor], name: str, count: int | None = None) -> list[int]:
    """Return the numbers of a 1-d tensor: int64, at least 0.

    Args:
        count: how many; None for any number.

    Raises:
        StateError: it is missing, or anything else.
    """
    tensor = _found(state, name)
    wanted = f"{'any number of' if count is None else count} integers from 0 on"
    if tensor.dtype != torch.int64 or tensor.ndim != 1 or count not in (None, len(tensor)):
        raise StateError(f"'{name}' should be {wanted}, but is {describe(tensor)}")
    values = [int(value) for value in tensor.tolist()]
    if any(value < 0 for value in values):
        raise StateError(f"'{name}' should be {wanted}, but is {values}")
    return values


def integer(state: Mapping[str, Tensor], name: str) -> int:
    """Return the number of a 0-d tensor: int64, at least 0.

    Raises:
        StateError: it is missing, or anything else.
    """
    tensor = _found(state, name)
    if tensor.ndim:
        raise StateError(f"'{name}' should be one integer, but is {describe(tensor)}")
    return integers({name: tensor.view(1)}, name, 1)[0]


def floats(
    state: Mapping[str, Tensor], name: str, *sizes: int | None, or_bytes: bool = False
) -> Tensor:
    """Return a tensor of floats.

    Args:
        sizes: of its dimensions; None for any.
        or_bytes: whether it may be of uint8, too.

    Raises:
        StateError: it is missing, of another kind or of other sizes.
    """
    tensor = _found(state, name)
    right_kind = tensor.is_floating_point() or (or_bytes and tensor.dtype == torch.uint8)
    fits = tensor.ndim == len(sizes) and all(
        wanted in (None, size) for wanted, size in zip(sizes, tensor.shape, strict=True)
    )
    if not (right_kind and fits):
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        kind = "bytes or floats" if or_bytes else "floats"
        raise StateError(f"'{name}' should be {kind} [{wanted}], but is {describe(tensor)}")
    return tensor


def require(right: bool, message: str) -> None:
    """Raise a StateError with this message if something is not right."""
    if not right:
        raise StateError(message)


def describe(tensor: Tensor) -> str:
    """Return type and sizes of a tensor: 'int64 [3]'."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _found(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise StateError(f"'{name}' is missing")
    return state[name]
