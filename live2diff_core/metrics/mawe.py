"""MAWE, the motion-aware warp error of StreamingT2V: warp error in relation to motion.

The paper (Henschel et al., "StreamingT2V", section 5.2, equation 9) and its published code define
it differently; both are here, under their own names. Both compare pictures of 0..255, scaled to
720x720. Lower is better. A video that stands still has no MAWE: it is infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import interpolate

from .flow import magnitude, warp
from .frames import Flow, Mask, Picture

SIZE = 720
# The published code's factor of the motion.
CODE_FACTOR = 9.5


def scaled(picture: Picture, side: int = SIZE) -> Picture:
    """Stretch to `side` x `side`, bilinearly without antialiasing, as the published code does."""
    if picture.shape[:2] == (side, side):
        return picture
    image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    image = interpolate(image, (side, side), mode="bilinear", align_corners=False)
    return image[0].permute(1, 2, 0).round().byte().numpy()


def splat(picture: Picture, flow: Flow) -> tuple[Picture, Mask]:
    """Move every pixel to round(p + flow[p]).

    Of several pixels with one target the last in reading order wins; targets outside are dropped.

    Args:
        picture: uint8 [H, W, 3].
        flow: from this picture to the other one.

    Returns:
        uint8 [H, W, 3], 0 where nothing lands, and bool [H, W]: whether something does.
    """
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    x = np.rint(x + flow[..., 0]).astype(np.intp)
    y = np.rint(y + flow[..., 1]).astype(np.intp)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    moved, known = np.zeros_like(picture), np.zeros((height, width), dtype=np.bool_)
    # NumPy assigns repeated indices in order.
    moved[y[inside], x[inside]] = picture[inside]
    known[y[inside], x[inside]] = True
    return moved, known


@dataclass
class CodeMAWE:
    """MAWE as the published code computes it.

    The mean over pairs of E / (9.5 m). E is the mean squared difference (over pixels and channels)
    of the right picture and the left one, splatted along the flow (`splat`), where something lands;
    m is the mean length of the flow in pixels. Unit: squared grey levels per pixel of motion; 0 and
    more.

    A pair of equal pictures (E and m are 0) says nothing and is left out.
    """

    total: float = 0.0
    pairs: int = 0

    def add(self, before: Picture, after: Picture, flow: Flow) -> float | None:
        """Count a pair, with the flow from `before` to `after`; return E / (9.5 m)."""
        moved, known = splat(before, flow)
        if not known.any():
            return None
        difference = after[known].astype(np.float64) - moved[known]
        value = _ratio(float(np.square(difference).mean()), CODE_FACTOR * _mean(magnitude(flow)))
        if value is not None:
            self.total += value
            self.pairs += 1
        return value

    @property
    def value(self) -> float | None:
        """The mean so far; None before the first pair that counts."""
        return self.total / self.pairs if self.pairs else None


@dataclass
class PaperMAWE:
    """MAWE as the paper defines it: W / OFS.

    W is the mean over pairs of the squared L2 distance (over the channels) of a frame's pixels to
    those of the warped subsequent frame, without occluded ones (see `flow.visible`); OFS is the
    mean of the squared lengths of all flow vectors. Unit: squared grey levels per squared pixel of
    motion; 0 and more. The paper does not state the range of its pixels; 0..255 is the code's.
    """

    error: float = 0.0
    error_pairs: int = 0
    motion: float = 0.0
    pairs: int = 0

    def add(self, before: Picture, after: Picture, flow: Flow, mask: Mask) -> None:
        """Count a pair, with the flow from `before` to `after` and the pixels of `before` seen."""
        self.motion += _mean(magnitude(flow) ** 2)
        self.pairs += 1
        moved, inside = warp(after, flow)
        mask = mask & inside
        if mask.any():
            difference = before[mask].astype(np.float64) - moved[mask]
            self.error += float(np.square(difference).sum(axis=-1).mean())
            self.error_pairs += 1

    @property
    def value(self) -> float | None:
        """The ratio so far; None while nothing could be compared, or for equal pictures."""
        if not self.error_pairs:
            return None
        return _ratio(self.error / self.error_pairs, self.motion / self.pairs)


def _ratio(error: float, motion: float) -> float | None:
    if motion > 0:
        return error / motion
    return math.inf if error > 0 else None


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64))
