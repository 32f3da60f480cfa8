"""Conditionings with a mask or prompt per frame: every row of a call gets those of its frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ctypes import c_float
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..stream.prompt_timeline import PromptTimeline
from ..stream.prompt_track import KEY, PromptTrack, track_of
from ..stream.transfer import upload

# The highest and the lowest noise level at which one of the host's conditionings is active.
_BOUNDS = ("timestep_start", "timestep_end")


class FrameConditionError(ValueError):
    """The masks or prompts cannot be matched with the frames."""


class FrameConditions:
    """Selects the masks and prompts of a call's frames from a run's conditionings.

    The host itself would give the first N masks or prompts of a batch to the N rows of any call.

    Args:
        conds: the host's conditionings by kind, as `convert_cond` makes them.
        frames: F, frames in the stream; None if unknown.

    Raises:
        FrameConditionError: a conditioning has neither 1 nor F masks or prompts.
        PromptScheduleError: from `track_of`.
    """

    def __init__(self, conds: Mapping[str, Sequence[dict]], frames: int | None) -> None:
        """Check the counts."""
        counts = set()
        tracks = []
        for cond in (cond for kind in conds.values() for cond in kind):
            mask, prompt = cond.get("mask"), cond.get("cross_attn")
            if mask is not None and mask.ndim > 2:
                counts.add(_count(mask, frames, "mask"))
            if prompt is not None:
                counts.add(_count(prompt, frames, "prompt"))
            tracks.append(track_of(cond))
        self.timelines: tuple[PromptTimeline, ...] = tuple(t.timeline for t in tracks if t)
        self._per_frame = bool(counts - {1} or self.timelines)

    def select(self, conds: Sequence[dict], frames: Sequence[int]) -> list[dict]:
        """Keep the masks and prompts of `frames` in processed conditionings of one kind.

        Raises:
            FrameConditionError: a batch has none for one of `frames`.
        """
        if not self._per_frame:
            return list(conds)
        return [_select(cond, list(frames)) for cond in conds]


def texts_on(cond: Mapping[str, Any], device: torch.device) -> dict:
    """Return a processed conditioning with its texts on `device`.

    The host itself would copy a text there for every call.
    """
    moved = dict(cond)
    text = cond["model_conds"].get("c_crossattn")
    if text is not None:
        there = type(text)(upload(text.cond, device))
        moved["model_conds"] = {**cond["model_conds"], "c_crossattn": there}
    track: PromptTrack | None = cond.get(KEY)
    if track is not None:
        moved[KEY] = replace(track, texts=tuple(upload(text, device) for text in track.texts))
    return moved


def has_steps(conds: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether any of the host's conditionings is active in a part of the steps only."""
    return any(name in cond for cond in conds for name in _BOUNDS)


def within_steps(conds: Sequence[dict], sigma: float) -> list[dict]:
    """Keep the conditionings that are active at a noise level, without their bounds.

    The host itself would compare them with the first row on the device, and wait for the result.
    """
    active = []
    # Like noise levels, the host rounds the bounds to float32.
    for cond in conds:
        start, end = (cond.get(name) for name in _BOUNDS)
        early = start is not None and sigma > c_float(start).value
        late = end is not None and sigma < c_float(end).value
        if not early and not late:
            active.append({name: value for name, value in cond.items() if name not in _BOUNDS})
    return active


def _count(batch: Tensor, frames: int | None, what: str) -> int:
    if len(batch) != 1 and frames is not None and len(batch) != frames:
        raise FrameConditionError(
            f"A conditioning has {len(batch)} {what}s for {frames} frames. Give it one {what} for "
            "all frames, or exactly one per frame."
        )
    return len(batch)


def _select(cond: dict, frames: list[int]) -> dict:
    model_conds = {name: _rows(c, frames) for name, c in cond["model_conds"].items()}
    track: PromptTrack | None = cond.get(KEY)
    if track is not None:
        text = model_conds["c_crossattn"]
        model_conds["c_crossattn"] = type(text)(track.rows(frames).to(text.cond.dtype))
    kept = {**cond, "model_conds": model_conds}
    if "mask" in cond and len(cond["mask"]) > 1:
        kept["mask"] = _pick(cond["mask"], frames)
    return kept


def _rows(model_cond: Any, frames: list[int]) -> Any:
    """Select rows of one of the host's COND objects; a single row applies to all frames."""
    tensor = getattr(model_cond, "cond", None)
    if not isinstance(tensor, Tensor) or len(tensor) == 1:
        return model_cond
    return type(model_cond)(_pick(tensor, frames))


def _pick(batch: Tensor, frames: list[int]) -> Tensor:
    if max(frames) >= len(batch):
        raise FrameConditionError(
            f"A conditioning has {len(batch)} masks or prompts, but the video has a frame "
            f"{max(frames)} (counted from 0). Give it one for all frames, or one per frame."
        )
    # Not batch[frames], which would make an index tensor of the list.
    return torch.stack([batch[frame] for frame in frames])
