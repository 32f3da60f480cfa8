"""Where a frame became NaN or infinite, as a small number that travels with it on the device.

A frame with a fault stays in its stream, so that every frame does the same operations, and nothing
is read back: what it leaves in the memories is finite and hidden from the frames behind it, and the
last output takes its place. Its fault arrives on the CPU together with its picture.

A fault is a 0-d uint8 tensor: `NONE`, or the first place where a number was not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .state import require

NONE, DEPTH, ENCODE, MODEL, DECODE = range(5)

PLACES = {
    DEPTH: "the depth model",
    ENCODE: "the VAE's encoder",
    MODEL: "the UNet",
    DECODE: "the VAE's decoder",
}


def no_fault(device: torch.device | None) -> Tensor:
    """Return the fault of a frame that is fine so far."""
    return torch.zeros((), dtype=torch.uint8, device=device)


def is_finite(values: Tensor) -> Tensor:
    """Return whether all values are finite, as a 0-d bool on their device."""
    # Three operations, where isfinite alone takes four. NaN is not less than infinity.
    return values.abs().amax() < math.inf


def rows_finite(values: Tensor) -> Tensor:
    """Return for each of N rows [N, ...] whether all its values are finite: [N] bool."""
    return values.abs().flatten(1).amax(1) < math.inf


def check_fault(state: Mapping[str, Tensor], name: str) -> None:
    """Check a fault of a saved state; earlier versions saved none.

    Raises:
        StateError: it is damaged.
    """
    if name in state:
        fault = state[name]
        right = (fault.dtype, fault.shape) == (torch.uint8, ()) and int(fault) <= DECODE
        require(right, f"'{name}' is no fault")


def noted(fault: Tensor, finite: Tensor, place: int) -> Tensor:
    """Return `fault`, or `place` where a frame without a fault is not `finite`; any one shape."""
    return fault.masked_fill(~finite & (fault == NONE), place)
