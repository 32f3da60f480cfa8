"""ControlNets on a stream: every row of a call gets the image of its own frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

FULL_RANGE = (0.0, 1.0)
# Images by frame: one [1, C, H, W] for each ControlNet, in the order of the conditionings.
FrameImages = dict[int, list[Tensor]]


class ControlHintError(ValueError):
    """Control images that cannot be matched with the frames."""


@dataclass(frozen=True)
class HintFrames:
    """Which frames a batch of control images belongs to.

    Attributes:
        first: frame of the first image.
        count: number of frames; None if unknown.
        follow: also show a single image to its frames only, from now on until they are finished,
            as live streams do: the next run has another.
        earlier: images of frames before `first`.
    """

    first: int = 0
    count: int | None = None
    follow: bool = False
    earlier: Mapping[int, Sequence[Tensor]] = field(default_factory=dict)


class ControlHints:
    """Private copies of the ControlNets in a run's conditionings.

    The host gives a ControlNet one batch of images for all calls and caches the resized form; a
    stream needs other images in every call. Copies share weights with the user's ControlNets.

    Args:
        conds: the host's conditionings by kind; their `control` entries are replaced by copies.
        frames: which frames the images belong to.

    Raises:
        ControlHintError: there are neither 1 nor as many images as frames.
    """

    def __init__(self, conds: dict[str, list[dict]], frames: HintFrames) -> None:
        """Copy every ControlNet once, so that conditionings that shared one still do."""
        copies: dict[int, Any] = {}
        for cond in (cond for kind in conds.values() for cond in kind):
            if "control" in cond:
                cond["control"] = _copy_chain(cond["control"], copies)
        self._frames = frames
        self._controls = list(copies.values())
        self._images = [_images(control, frames) for control in self._controls]

    @property
    def partial(self) -> bool:
        """Whether any ControlNet is on for a part of the denoising steps only."""
        return any(tuple(c.timestep_percent_range) != FULL_RANGE for c in self._controls)

    def place(self, first: int, earlier: Mapping[int, Sequence[Tensor]]) -> None:
        """Set the frame of the first image, and the images of earlier frames."""
        self._frames = replace(self._frames, first=first, earlier=earlier)

    def show(self, frames: Sequence[int]) -> None:
        """Set each ControlNet's image to those of `frames`, one per row of the next call.

        Raises:
            ControlHintError: there is none for one of them.
        """
        for place, control in enumerate(self._controls):
            images = self._images[place]
            if images is None or (len(images) == 1 and not self._frames.follow):
                continue
            size = images.shape[2:]
            control.cond_hint_original = torch.cat(
                [_resized(self._image(place, frame), size) for frame in frames]
            )
            # The host keeps the resized image of the call before.
            control.cond_hint = None

    def of(self, frames: Iterable[int]) -> FrameImages:
        """Return the images of some frames, for a later run that goes on with them."""
        with_images = [place for place, images in enumerate(self._images) if images is not None]
        if not with_images:
            return {}
        places = range(with_images[-1] + 1)
        # Copies: a part of a batch would keep all of it in memory.
        return {frame: [self._image(place, frame).clone() for place in places] for frame in frames}

    def _image(self, place: int, frame: int) -> Tensor:
        """Return the image [1, C, H, W] of the ControlNet at `place` for a frame."""
        images, first = self._images[place], self._frames.first
        earlier = self._frames.earlier.get(frame, ())
        if frame < first and place < len(earlier):
            return earlier[place]
        if images is None:
            return torch.zeros(1, 3, 8, 8)
        if len(images) == 1 or frame < first:
            return images[:1]
        if frame - first >= len(images):
            raise ControlHintError(
                f"A ControlNet got {len(images)} images, but the video has a frame "
                f"{frame - first} (counted from 0). Give it one for all frames, or one per frame."
            )
        return images[frame - first : frame - first + 1]


def _resized(image: Tensor, size: torch.Size) -> Tensor:
    """Resize an earlier run's image to the size of this run's."""
    return image if image.shape[2:] == size else interpolate(image, size=tuple(size))


def _copy_chain(control: Any, copies: dict[int, Any]) -> Any:
    """Copy a ControlNet and those chained before it; `copies` maps id of original to copy."""
    if id(control) not in copies:
        copy = control.copy()
        if control.previous_controlnet is not None:
            copy.set_previous_controlnet(_copy_chain(control.previous_controlnet, copies))
        copies[id(control)] = copy
    return copies[id(control)]


def _images(control: Any, frames: HintFrames) -> Tensor | None:
    """Get a ControlNet's images [n, C, H, W]; None for one without, such as a reference net."""
    images = control.cond_hint_original
    if images is None:
        return None
    if len(images) != 1 and frames.count is not None and len(images) != frames.count:
        raise ControlHintError(
            f"A ControlNet got {len(images)} images for {frames.count} frames. Give it one image "
            "for all frames, or exactly one per frame."
        )
    return images
