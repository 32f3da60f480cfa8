"""Warp error: how far a frame is from the one before it, moved along by optical flow."""

from __future__ import annotations

import numpy as np

from .flow import warp
from .frames import Flow, Mask, Picture


def warp_error(before: Picture, after: Picture, flow: Flow, mask: Mask) -> float | None:
    """Return the mean squared difference of `after` and the warped `before`, where `mask` is True.

    The mean is over the pixels of the mask and the three channels, of values in 0..1: without a
    unit, 0 (the same) to 1. Lower is better. Times 65,025 it is on the scale of StreamV2V's tables,
    whose values are 0..255.

    Source: Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018, with the
    weights of their code: 1 where a pixel is visible in both frames (see `flow.visible`), else 0.
    A pair without such a pixel counts as 0 there; here it does not count.
    Which flow is meant differs: StreamV2V (section 5.3) takes that of the *input* video, as Lai et
    al. do; Live2Diff (section 4.1) writes of the flow between the frames whose error it is.

    Args:
        before, after: neighbouring frames.
        flow: from `after` to `before`.
        mask: bool [H, W] in `after`.

    Returns:
        None if the mask is empty.
    """
    moved, inside = warp(before, flow)
    compared = mask & inside
    if not compared.any():
        return None
    difference = (after[compared] - moved[compared]) / 255
    return float(np.square(difference, dtype=np.float64).mean())
