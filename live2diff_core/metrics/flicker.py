"""Flicker: how much the output changes where the input stands still."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from .frames import Mask, Picture

# The mean over 5x5 pixels leaves out the noise of a camera and of a codec.
RADIUS = 2
STILL_LEVELS = 3.0


def still(before: Picture, after: Picture, levels: float = STILL_LEVELS) -> Mask:
    """Find the pixels around which a video does not change.

    They are those where the absolute difference of the frames, averaged over 5x5 pixels and the
    channels, is at most `levels` of 255.

    Returns:
        bool [H, W].
    """
    difference = np.abs(after.astype(np.float32) - before).mean(axis=-1)
    return _box_mean(difference) <= levels


def flicker(before: Picture, after: Picture, mask: Mask) -> float | None:
    """Return the mean absolute difference of two frames where `mask` is True.

    Over pixels and channels, of values in 0..1: without a unit, 0 (steady) to 1. Lower is better.

    Source: "temporal flickering" of Huang et al., "VBench", CVPR 2024, which takes the mean
    absolute difference of neighbouring frames of videos that stand still; here it is taken in the
    still regions of any video (`still` of the input), and not turned into a score of 1 - x.

    Returns:
        None if nothing stands still.
    """
    if not mask.any():
        return None
    difference = np.abs(after[mask].astype(np.float32) - before[mask]) / 255
    return float(difference.mean(dtype=np.float64))


def _box_mean(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average [H, W] over squares of 5x5; at the borders over the part inside."""
    padded = np.pad(values.astype(np.float64), RADIUS)
    inside = np.pad(np.ones_like(values, dtype=np.float64), RADIUS)
    return _box_sum(padded) / _box_sum(inside)


def _box_sum(padded: NDArray[np.float64]) -> NDArray[np.float64]:
    side = 2 * RADIUS + 1
    return sliding_window_view(sliding_window_view(padded, side, 0).sum(-1), side, 1).sum(-1)
