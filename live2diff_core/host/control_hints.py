"""ControlNets in a stream: every row of a call gets the image of its own frame."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..stream.transfer import upload

FULL_RANGE = (0.0, 1.0)
# Images by frame: one [1, C, H, W] for each ControlNet, in the order of the conditionings.
FrameImages = dict[int, list[Tensor]]


class ControlHintError(ValueError):
    """The control images cannot be matched with the frames."""


@dataclass(frozen=True)
class HintFrames:
    """The frames that a batch of control images belongs to.

    Attributes:
        first: frame of the first image.
        count: number of frames; None if unknown.
        follow: use a single image only for the frames of this run, until they are finished, as
            live streams do: the next run has another image.
        earlier: images of frames before `first`.
    """

    first: int = 0
    count: int | None = None
    follow: bool = False
    earlier: Mapping[int, Sequence[Tensor]] = field(default_factory=dict)


class ControlHints:
    """Private copies of the ControlNets in a run's conditionings.

    The host gives a ControlNet one batch of images for all calls and caches the resized batch; a
    stream needs other images in every call. Copies share weights with the user's ControlNets.

    Args:
        conds: the host's conditionings by kind; their `control` entries are replaced by copies.
        frames: the frames that the images belong to.

    Raises:
        ControlHintError: there are neither 1 nor as many images as frames.
    """

    def __init__(self, conds: dict[str, list[dict]], frames: HintFrames) -> None:
        """Copy every ControlNet once, so that conditionings still share their ControlNets."""
        copies: dict[int, Any] = {}
        for cond in (cond for kind in conds.values() for cond in kind):
            if "control" in cond:
                cond["control"] = _copy_chain(cond["control"], copies)
        self._frames = frames
        self._controls = list(copies.values())
        self._images = [_images(control, frames) for control in self._controls]
        # Images on the model's device of the frames inside, by ControlNet and frame.
        self._uploaded: list[dict[int, Tensor]] = [{} for _ in self._controls]
        self._device = torch.device("cpu")

    def open(self, device: torch.device) -> None:
        """Follow the host, which has prepared the ControlNets for a run on `device`."""
        self._device = device
        for control in self._controls:
            if tuple(control.timestep_percent_range) == FULL_RANGE:
                # The host would compare the range with every call's timestep, and wait for that.
                control.timestep_range = None

    @property
    def partial(self) -> bool:
        """Whether any ControlNet is active in only a part of the denoising steps."""
        return any(tuple(c.timestep_percent_range) != FULL_RANGE for c in self._controls)

    def show(self, frames: Sequence[int]) -> None:
        """Set each ControlNet's images to those of `frames`, one per row of the next call.

        Raises:
            ControlHintError: a frame has no image.
        """
        for place, control in enumerate(self._controls):
            images = self._images[place]
            if images is None or (len(images) == 1 and not self._frames.follow):
                continue
            uploaded = self._uploaded[place]
            for frame in frames:
                if frame not in uploaded:
                    image = _resized(self._image(place, frame), images.shape[2:])
                    uploaded[frame] = upload(image, self._device)
            control.cond_hint_original = torch.cat([uploaded[frame] for frame in frames])
            # The host would reuse the resized image of the previous call.
            control.cond_hint = None

    def keep(self, frames: Collection[int]) -> None:
        """Drop the uploaded images of all other frames: these are the ones inside."""
        for uploaded in self._uploaded:
            for frame in uploaded.keys() - frames:
                del uploaded[frame]

    def of(self, frames: Iterable[int]) -> FrameImages:
        """Return the images of some frames, for a later run that continues with them."""
        with_images = [place for place, images in enumerate(self._images) if images is not None]
        if not with_images:
            return {}
        places = range(with_images[-1] + 1)
        # Clone the images, because a view would keep the whole batch alive.
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
    """Copy a chain of ControlNets; `copies` maps the originals' ids to the copies."""
    if id(control) not in copies:
        copy = control.copy()
        if control.previous_controlnet is not None:
            copy.set_previous_controlnet(_copy_chain(control.previous_controlnet, copies))
        copies[id(control)] = copy
    return copies[id(control)]


def _images(control: Any, frames: HintFrames) -> Tensor | None:
    """Return a ControlNet's images [n, C, H, W]; None if it has none, as reference nets do."""
    images = control.cond_hint_original
    if images is None:
        return None
    if len(images) != 1 and frames.count is not None and len(images) != frames.count:
        raise ControlHintError(
            f"A ControlNet got {len(images)} images for {frames.count} frames. Give it one image "
            "for all frames, or exactly one per frame."
        )
    return images
