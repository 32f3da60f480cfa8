"""Prompts that change over a stream: a frame keeps its own prompt through all denoising steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .prompt_timeline import PromptChange, PromptTimeline

KEY = "live2diff_prompts"
# Entries of a conditioning, beside its text, that cannot change from frame to frame.
_FIXED = ("control", "area", "mask", "hooks", "start_percent", "end_percent", "gligen")


class PromptScheduleError(ValueError):
    """One conditioning cannot follow another; the message says why."""


@dataclass(frozen=True)
class PromptTrack:
    """The texts of one conditioning over a stream.

    Attributes:
        texts: encoded prompts, [1, tokens, C] each, by their numbers in the timeline.
        timeline: the frames at which one text changes to the next.
    """

    texts: tuple[Tensor, ...]
    timeline: PromptTimeline

    def text(self, frame: int) -> Tensor:
        """Return the text of a frame, [1, tokens, C]: one text, or a blend."""
        (first, weight), *others = self.timeline.weights(frame).items()
        if not others:
            return self.texts[first]
        text = self.texts[first] * weight
        for number, weight in others:
            text = text + self.texts[number] * weight
        return text

    def rows(self, frames: Sequence[int]) -> Tensor:
        """Return the texts of a call's frames: [N, tokens, C], or [1, tokens, C] if all are one."""
        if len({tuple(self.timeline.weights(frame).items()) for frame in frames}) == 1:
            return self.text(frames[0])
        return torch.cat([self.text(frame) for frame in frames])

    def then(self, text: Tensor, change: PromptChange) -> PromptTrack:
        """Return a track with one more text; all texts are repeated to the same token count."""
        count = math.lcm(self.texts[0].shape[1], text.shape[1])
        # Attention over repeated tokens equals attention over single ones; the host repeats, too.
        texts = [t.repeat(1, count // t.shape[1], 1) for t in (*self.texts, text)]
        changes = (*self.timeline.changes, change)
        return PromptTrack(tuple(texts), replace(self.timeline, changes=changes))


def follow(before: Sequence[Any], after: Sequence[Any], change: PromptChange) -> list:
    """Make one conditioning follow another from a frame on.

    Args:
        before: ComfyUI's [[tensor, {...}], ...], with a schedule or without.
        after: the next conditioning; only its texts are used.
        change: the frame and blend of the change.

    Returns:
        `before`, with a `PromptTrack` in each of its parts.

    Raises:
        PromptScheduleError: the two do not match, or `after` carries more than texts.
        ValueError: from `PromptTimeline`.
    """
    if len(before) != len(after):
        raise PromptScheduleError(
            f"The prompt has {len(before)} parts and the next one {len(after)}. Combine prompts "
            "(Conditioning Combine) after the schedule, or with as many parts in each."
        )
    return [
        _follow_one(text, extra, next_text, next_extra, change)
        for (text, extra), (next_text, next_extra) in zip(before, after, strict=True)
    ]


def _follow_one(
    text: Tensor,
    extra: Mapping[str, Any],
    next_text: Tensor,
    next_extra: Mapping[str, Any],
    change: PromptChange,
) -> list:
    fixed = [name for name in _FIXED if next_extra.get(name) is not None]
    if fixed or KEY in next_extra:
        what = ", ".join(fixed) or "a schedule of its own"
        raise PromptScheduleError(
            f"The next prompt carries {what}, which cannot begin with a frame. Put nodes such as "
            "Apply ControlNet behind the last 'Prompt Schedule', and chain schedules by 'prompt'."
        )
    if len(text) != 1 or len(next_text) != 1 or text.shape[2] != next_text.shape[2]:
        raise PromptScheduleError(
            f"Prompts of {list(text.shape)} and {list(next_text.shape)} cannot follow one another; "
            "both must be single texts from one CLIP."
        )
    track = extra.get(KEY) or PromptTrack((text,), PromptTimeline())
    track = track.then(next_text, change)
    return [track.texts[0], {**extra, KEY: track}]


def track_of(cond: Mapping[str, Any]) -> PromptTrack | None:
    """Return the track of one of the host's converted conditionings; None without a schedule.

    Raises:
        PromptScheduleError: another node changed the text after it was scheduled.
    """
    track = cond.get(KEY)
    if track is None:
        return None
    text = cond["cross_attn"]
    if text.shape != track.texts[0].shape or not torch.equal(text.cpu(), track.texts[0].cpu()):
        raise PromptScheduleError(
            "A node behind 'Prompt Schedule' (such as Conditioning Concat or Average) changed its "
            "first text, but not the others. Put it before 'Prompt Schedule'."
        )
    return track
