"""Optical flow: what an estimator is, OpenCV's DIS, warping, and occlusions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .frames import Flow, Mask, MeasureError, Picture

# Flow from the first picture to the second: what is at p in the first is at p + flow[p] in the
# second. Pictures of one size.
FlowEstimator = Callable[[Picture, Picture], Flow]

# Constants of Ruder et al. 2016.
_RELATIVE, _ABSOLUTE = 0.01, 0.5
_EDGE_RELATIVE, _EDGE_ABSOLUTE = 0.01, 0.002
_DIS_SMALLEST = 12

NO_OPENCV = (
    "Optical flow without RAFT's weights is computed by OpenCV, which is missing. Install it with: "
    "pip install opencv-python-headless (with the Python that runs ComfyUI; leave it if there is "
    "an opencv-python already), or put RAFT-large into models/optical_flow."
)


class DISFlow:
    """OpenCV's Dense Inverse Search: no weights, about 40 ms for 512x512 on a CPU.

    Source: Kroeger et al., "Fast Optical Flow using Dense Inverse Search", ECCV 2016; OpenCV's
    preset "medium".
    """

    name = "OpenCV's DIS"

    def __init__(self) -> None:
        """Open the estimator.

        Raises:
            ImportError: there is no OpenCV; the message says how to get it.
        """
        try:
            import cv2
        except ImportError as error:
            raise ImportError(NO_OPENCV) from error
        self._grey = lambda picture: cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        # A new one for every pair: after a smaller picture, OpenCV's object keeps using fewer
        # scales, so its results depend on what it has seen before.
        self._open = lambda: cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first: Picture, second: Picture) -> Flow:
        """Estimate the flow from `first` to `second`.

        Raises:
            MeasureError: pictures are smaller than 12x12 pixels.
        """
        height, width = first.shape[:2]
        if min(height, width) < _DIS_SMALLEST:
            raise MeasureError(
                f"Frames of {width}x{height} pixels are too small for optical flow, which needs "
                f"{_DIS_SMALLEST}x{_DIS_SMALLEST}. Scale both videos up, or measure without flow."
            )
        return self._open().calc(self._grey(first), self._grey(second), None)


def warp(image: NDArray, flow: Flow) -> tuple[NDArray[np.float32], Mask]:
    """Look up `image` at p + flow[p], bilinearly.

    With the flow from a frame to the one before it, this moves the earlier picture to where its
    contents are in the later one.

    Args:
        image: [H, W, C] of any range.
        flow: [H, W, 2].

    Returns:
        float32 [H, W, C], and bool [H, W]: whether p + flow[p] lies inside the picture.
    """
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width]
    x, y = x + flow[..., 0].astype(np.float64), y + flow[..., 1].astype(np.float64)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across = (x - left).astype(np.float32)[..., None]
    down = (y - top).astype(np.float32)[..., None]
    image = image.astype(np.float32, copy=False)
    upper = image[top, left] * (1 - across) + image[top, right] * across
    lower = image[bottom, left] * (1 - across) + image[bottom, right] * across
    return upper * (1 - down) + lower * down, inside


def visible(flow: Flow, other: Flow) -> Mask:
    """Find the pixels whose contents are seen in both frames.

    A pixel counts as occluded where the flow there and the flow back do not cancel, and at the
    edges of motion, where flow is blurred: |w~ + w|^2 > 0.01 (|w~|^2 + |w|^2) + 0.5, or
    |grad u|^2 + |grad v|^2 > 0.01 |w|^2 + 0.002, with w the flow and w~ the other one, looked up
    at p + w[p]. Pixels that point outside the picture are not visible either.

    Source: Ruder et al., "Artistic Style Transfer for Videos", GCPR 2016 (temporal consistency
    loss), after Sundaram et al. 2010; used for warp errors by Lai et al., "Learning Blind Video
    Temporal Consistency", ECCV 2018.

    Args:
        flow: from this frame to another one.
        other: from the other one to this frame.

    Returns:
        bool [H, W] in this frame; True is visible.
    """
    back, inside = warp(other, flow)
    squared = _squared(flow)
    missed = _squared(back + flow) > _RELATIVE * (_squared(back) + squared) + _ABSOLUTE
    steps = _squared(_difference(flow, 1)) + _squared(_difference(flow, 0))
    edge = steps > _EDGE_RELATIVE * squared + _EDGE_ABSOLUTE
    return inside & ~missed & ~edge


def magnitude(flow: Flow) -> NDArray[np.float32]:
    """Return the length of every vector, [H, W] in pixels."""
    return np.sqrt(_squared(flow))


def _squared(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    return (flow * flow).sum(axis=-1)


def _difference(flow: Flow, axis: int) -> Flow:
    """Return the difference to the next pixel along `axis`; 0 at the last one."""
    return np.diff(flow, axis=axis, append=flow.take([-1], axis=axis))
