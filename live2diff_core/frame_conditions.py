"""Conditionings with a mask or a prompt per frame: every row of a call gets its own frame's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


class FrameConditionError(ValueError):
    """Masks or prompts that cannot be matched with the frames."""


class FrameConditions:
    """Picks the frames of a call from a run's conditionings.

    The host shows the first N of a batch of masks or prompts to the N rows of any call.

    Args:
        conds: the host's conditionings by kind, as `convert_cond` makes them.
        frames: F, frames in the stream.

    Raises:
        FrameConditionError: a conditioning has neither 1 nor F masks or prompts.
    """

    def __init__(self, conds: Mapping[str, Sequence[dict]], frames: int) -> None:
        """Check the counts."""
        counts = set()
        for cond in (cond for kind in conds.values() for cond in kind):
            mask, prompt = cond.get("mask"), cond.get("cross_attn")
            if mask is not None and mask.ndim > 2:
                counts.add(_count(mask, frames, "mask"))
            if prompt is not None:
                counts.add(_count(prompt, frames, "prompt"))
        self._per_frame = bool(counts - {1})

    def select(self, conds: Sequence[dict], frames: Sequence[int]) -> list[dict]:
        """Keep the masks and prompts of `frames` in processed conditionings of one kind."""
        if not self._per_frame:
            return list(conds)
        return [_select(cond, list(frames)) for cond in conds]


def _count(batch: Tensor, frames: int, what: str) -> int:
    if len(batch) not in (1, frames):
        raise FrameConditionError(
            f"A conditioning has {len(batch)} {what}s for {frames} frames. Give it one {what} for "
            "all frames, or exactly one per frame."
        )
    return len(batch)


def _select(cond: dict, frames: list[int]) -> dict:
    kept = {
        **cond,
        "model_conds": {name: _rows(c, frames) for name, c in cond["model_conds"].items()},
    }
    if "mask" in cond and len(cond["mask"]) > 1:
        kept["mask"] = cond["mask"][frames]
    return kept


def _rows(model_cond: Any, frames: list[int]) -> Any:
    """Select rows of one of the host's COND objects; those with one row are for all frames."""
    tensor = getattr(model_cond, "cond", None)
    if not isinstance(tensor, Tensor) or len(tensor) == 1:
        return model_cond
    return type(model_cond)(tensor[frames])
