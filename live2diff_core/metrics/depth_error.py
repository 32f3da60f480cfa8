"""Depth MSE: whether the output keeps the structure of the input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .frames import Picture

# From uint8 [F, H, W, 3] to inverse depth [F, h, w] of any scale; larger is nearer.
DepthEstimator = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_FLAT = 1e-6


def depth_mse(depth: DepthEstimator, before: Picture, after: Picture) -> float:
    """Return the mean squared difference of the depths of an input frame and of its output.

    Depth of each picture is stretched to 0..1 at the network's own size, as the network states it
    only up to a scale and a shift. Without a unit, 0 (the same structure) to 1. Lower is better.

    Source: "structure consistency" of Xing et al., "Live2Diff", section 4.1, with MiDaS. The paper
    does not say on which scale its numbers are (1.12 in table 1); the range of every picture is how
    its code normalises depth.

    Args:
        depth: estimates the depth of both pictures in one call.
        before, after: input and output, of one size.

    Raises:
        ValueError: the estimate is not finite or has another shape.
    """
    raw = np.asarray(depth(np.stack([before, after])), dtype=np.float64)
    if raw.ndim != 3 or len(raw) != 2:
        raise ValueError(f"The depth of 2 pictures should be [2, h, w], but is {list(raw.shape)}.")
    if not np.isfinite(raw).all():
        raise ValueError("The depth model gave NaN or infinite depth; its file may be damaged.")
    return float(np.square(_stretched(raw[0]) - _stretched(raw[1])).mean())


def _stretched(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Map the range of [h, w] to 0..1; a flat one becomes 0."""
    low, high = raw.min(), raw.max()
    if high - low <= _FLAT * max(abs(low), abs(high)):
        return np.zeros_like(raw)
    return (raw - low) / (high - low)
