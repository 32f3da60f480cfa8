"""Prompts that are changed while a stream runs, also while an earlier change still blends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .prompt_timeline import PromptChange, PromptTimeline
from .prompt_track import KEY, PromptTrack, follow


@dataclass(frozen=True)
class LiveTimeline(PromptTimeline):
    """Changes of which one may begin while the one before it blends in.

    It takes its share from the mixture as that goes on, so that nothing jumps.
    """

    def __post_init__(self) -> None:
        """Accept blends that overlap."""

    def weights(self, frame: int) -> dict[int, float]:
        """Return the weights of the prompts in `frame`, by their numbers; they add up to 1."""
        mixture = {0: 1.0}
        for number, change in enumerate(self.changes, 1):
            weight = change.weight(frame)
            if weight == 1.0:
                mixture = {number: 1.0}
            elif weight:
                rest = {other: share * (1.0 - weight) for other, share in mixture.items()}
                mixture = {**rest, number: weight}
        return mixture


def change_prompt(
    before: Sequence[Any], after: Sequence[Any], frame: int, blend: int, oldest: int
) -> list:
    """Make a running stream's conditioning change to another one.

    What a schedule had planned from `frame` on is left out, and what no frame needs any more, so
    that a stream may change its prompt for as long as it runs.

    Args:
        before: ComfyUI's [[tensor, {...}], ...] that the stream has.
        after: the next one; only its texts are used.
        frame: the stream's next frame, which is the first with the next prompt.
        blend: frames over which it takes over; 0 is a cut.
        oldest: the oldest frame that is still inside.

    Raises:
        PromptScheduleError: from `follow`.
    """
    if not frame:
        return [list(part) for part in after]
    kept = [_kept(text, extra, frame, oldest) for text, extra in before]
    return follow(kept, after, PromptChange(frame, blend))


def _kept(text: Tensor, extra: Mapping[str, Any], start: int, oldest: int) -> list:
    """Keep what the frames from `oldest` to before `start` need, for changes that overlap."""
    track = extra.get(KEY) or PromptTrack((text,), PromptTimeline())
    changes = [change for change in track.timeline.changes if change.start < start]
    over = [number for number, c in enumerate(changes, 1) if c.weight(oldest) == 1.0]
    first = over[-1] if over else 0
    texts = track.texts[first : len(changes) + 1]
    kept = PromptTrack(texts, LiveTimeline(tuple(changes[first:])))
    return [texts[0], {**extra, KEY: kept}]
