"""The size at which a video is translated: a multiple of 8, as the model's latents need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

SizeMode = Literal["keep", "fit", "fill"]
MULTIPLE = 8
LARGEST = 16_384


class FrameSizeError(ValueError):
    """A size that frames cannot have. The message names the size and the remedy."""


@dataclass(frozen=True)
class FrameSizePlan:
    """How a frame becomes another size: scale it, then cut a box out.

    Attributes:
        source: width and height of the frames that come in.
        scaled: width and height to scale to.
        crop: left, top, width, height of the box, in pixels of the scaled frame.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    crop: tuple[int, int, int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the result."""
        return self.crop[2], self.crop[3]

    def __str__(self) -> str:
        """Describe the plan for people."""
        text = f"{self.source[0]}x{self.source[1]}"
        if self.scaled != self.source:
            text += f", scaled to {self.scaled[0]}x{self.scaled[1]}"
        if self.size != self.scaled:
            text += f", cropped to {self.size[0]}x{self.size[1]}"
        return text

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Scale and crop uint8 [H, W, 3]; the same numbers on every machine.

        Lanczos, widened when scaling down, so that nothing flickers. Only the box is computed.

        Raises:
            FrameSizeError: `image` is not of the size planned for.
        """
        if image.shape[:2] != self.source[::-1]:
            raise FrameSizeError(
                f"A frame of {image.shape[1]}x{image.shape[0]} came where "
                f"{self.source[0]}x{self.source[1]} was expected."
            )
        left, top, width, height = self.crop
        if self.scaled == self.source:
            return np.ascontiguousarray(image[top : top + height, left : left + width])
        across, down = (old / new for old, new in zip(self.source, self.scaled, strict=True))
        # Rounding may put an edge of the box 1e-13 outside, which Pillow refuses.
        right = min((left + width) * across, self.source[0])
        bottom = min((top + height) * down, self.source[1])
        box = (left * across, top * down, right, bottom)
        picture = Pillow.fromarray(np.ascontiguousarray(image))
        return np.array(picture.resize(self.size, Pillow.Resampling.LANCZOS, box=box))


def plan_frame_size(
    width: int,
    height: int,
    mode: SizeMode,
    target_width: int = 0,
    target_height: int = 0,
    name: str = "The video",
) -> FrameSizePlan:
    """Plan how frames of `width` x `height` get a size whose sides are multiples of 8.

    - `keep`: the largest such size inside the frame, cut from its middle: up to 7 rows and columns
      are lost, nothing is scaled. The target is not used.
    - `fit`: the whole frame inside the target, up or down. What keeping the aspect leaves over to
      the multiple of 8 is cut off at the edges, nothing is distorted.
    - `fill`: exactly the target, rounded down to multiples of 8; what sticks out is cut off.

    Errors call the video `name`.

    Raises:
        FrameSizeError: a side is below 8 pixels or above 16384, before or after.
    """
    if mode not in get_args(SizeMode):
        raise FrameSizeError(f"'{mode}' is no way to choose a size; use keep, fit or fill.")
    _check(f"{name} is", width, height)
    if mode == "keep":
        size = _down(width), _down(height)
    else:
        _check("The size asked for is", target_width, target_height)
        size = _down(target_width), _down(target_height)
    if mode == "fit":
        # In integers: floating point would lose 8 pixels where the division comes out even.
        if target_width * height <= target_height * width:
            size = _down(target_width), _down(height * target_width // width)
        else:
            size = _down(width * target_height // height), _down(target_height)
        _check(f"{name} is {width}x{height} pixels; fitted, it is", *size)
    scaled = (width, height) if mode == "keep" else _cover(width, height, *size)
    left, top = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return FrameSizePlan((width, height), scaled, (left, top, *size))


def _down(length: int) -> int:
    return length // MULTIPLE * MULTIPLE


def _cover(width: int, height: int, target_width: int, target_height: int) -> tuple[int, int]:
    """Return the smallest size of this aspect that covers the target, in whole pixels."""
    if target_width * height >= target_height * width:
        return target_width, max(target_height, round(height * target_width / width))
    return max(target_width, round(width * target_height / height)), target_height


def _check(what: str, width: int, height: int) -> None:
    if not (MULTIPLE <= width <= LARGEST and MULTIPLE <= height <= LARGEST):
        raise FrameSizeError(
            f"{what} {width}x{height} pixels; each side must be from {MULTIPLE} to {LARGEST}."
        )
