"""ControlNets on a stream: every row of a call is shown the hint of its own frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

FULL_RANGE = (0.0, 1.0)


class ControlHintError(ValueError):
    """Control images that cannot be matched with the frames."""


@dataclass(frozen=True)
class _FrameHint:
    """A ControlNet of ours and its images, one per frame: [F, C, H, W]."""

    control: Any
    images: Tensor


class ControlHints:
    """Private copies of the ControlNets in a run's conditionings.

    The host gives a ControlNet one batch of hints for all calls and caches the resized form; a
    stream needs other images in every call. Copies share weights with the user's ControlNets.

    Args:
        conds: the host's conditionings by kind; their `control` entries are replaced by copies.
        frames: F, frames in the stream.

    Raises:
        ControlHintError: a hint batch has neither 1 nor F images.
    """

    def __init__(self, conds: dict[str, list[dict]], frames: int) -> None:
        """Copy every ControlNet once, so that conditionings that shared one still do."""
        copies: dict[int, Any] = {}
        for cond in (cond for kind in conds.values() for cond in kind):
            if "control" in cond:
                cond["control"] = _copy_chain(cond["control"], copies)
        self._controls = list(copies.values())
        self._per_frame = [
            _FrameHint(control, control.cond_hint_original)
            for control in self._controls
            if _hint_count(control, frames) > 1
        ]

    @property
    def partial(self) -> bool:
        """Whether any ControlNet is on for a part of the denoising steps only."""
        return any(tuple(c.timestep_percent_range) != FULL_RANGE for c in self._controls)

    def show(self, frames: Sequence[int]) -> None:
        """Set each ControlNet's hint to the images of `frames`, one per row of the next call."""
        for hint in self._per_frame:
            hint.control.cond_hint_original = hint.images[list(frames)]
            # The host keeps the resized hint of the call before.
            hint.control.cond_hint = None


def _copy_chain(control: Any, copies: dict[int, Any]) -> Any:
    """Copy a ControlNet and those chained before it; `copies` maps id of original to copy."""
    if id(control) not in copies:
        copy = control.copy()
        if control.previous_controlnet is not None:
            copy.set_previous_controlnet(_copy_chain(control.previous_controlnet, copies))
        copies[id(control)] = copy
    return copies[id(control)]


def _hint_count(control: Any, frames: int) -> int:
    images = control.cond_hint_original
    count = 1 if images is None else len(images)
    if count not in (1, frames):
        raise ControlHintError(
            f"A ControlNet got {count} images for {frames} frames. Give it one image for all "
            "frames, or exactly one per frame."
        )
    return count
