"""Fills networks with the tensors of a file, and refuses a file that does not fit, with the reason.

Networks are made on the meta device, where they take no memory, and get the tensors themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Tensors = Mapping[str, Tensor]
Network = TypeVar("Network", bound=nn.Module)

# Names and shapes listed in a message.
_LISTED = 3


class CheckpointError(ValueError):
    """A file of weights cannot be used; the message names the file, what is wrong and a remedy."""


def of_part(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def shape_of(tensors: Tensors, name: str, dims: int) -> torch.Size:
    """Return the shape of the tensor `name`.

    Raises:
        CheckpointError: it is missing, or has not `dims` dimensions.
    """
    if name not in tensors:
        raise CheckpointError(f"it has no '{name}', from which sizes are read.")
    shape = tensors[name].shape
    if len(shape) != dims:
        raise CheckpointError(f"'{name}' has {len(shape)} dimensions, but should have {dims}.")
    return shape


def fill(network: Network, tensors: Tensors, dtype: torch.dtype, what: str) -> Network:
    """Give a network on the meta device its tensors, converted to `dtype`.

    Args:
        network: as made on the meta device.
        tensors: of exactly its names and shapes.
        dtype: of the floating-point tensors.
        what: the network, for messages.

    Returns:
        `network`, for inference.

    Raises:
        CheckpointError: names are missing or too many, or shapes contradict each other.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    _check(wanted, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, what)
    converted = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    network.load_state_dict(converted, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _check(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], what: str
) -> None:
    missing = [name for name in wanted if name not in found]
    unknown = [name for name in found if name not in wanted]
    other = [
        f"{name} {list(found[name])} in place of {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    problems = [
        f"{len(names)} {title}: {_some(names)}"
        for title, names in (
            ("tensors are missing", missing),
            ("tensors are not known", unknown),
            ("shapes contradict the others", other),
        )
        if names
    ]
    if problems:
        raise CheckpointError(f"{what} is not complete: {'; '.join(problems)}.")


def _some(names: list[str]) -> str:
    more = ", ..." if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
