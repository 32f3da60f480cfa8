"""Attention of the current frames over a window of cached ones. Pure functions of tensors.

Live2Diff adds a position's sinusoid before the linear projections. Because of their linearity,
`to_k(x + pe) = to_k(x) + to_k(pe)`, so `q.(k + pe_k) = q.k + q.pe_k` and
`sum a (v + pe_v) = sum a v + sum a pe_v`: positions become a small bias of the scores and a small
term of the output, and no tensor of the cache's size is ever copied to add them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .window import WindowRow


@dataclass(frozen=True)
class PositionTables:
    """One attention's projections of the position table: [P, heads, d] each."""

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class WindowView:
    """The windows of a model call as tensors, created once per call and read by every attention.

    Attributes:
        steps: R consecutive denoising steps, one per group in flight.
        slots: [R, Q] int64, cache slots that the current frames are written to.
        query_positions: [R, Q] int64, positions of the current frames.
        key_positions: [R, L] int64, positions of the cached frames; 0 in hidden slots.
        hidden: [R, L] bool, the slots that no frame sees; None once all are visible.
    """

    steps: range
    slots: Tensor
    query_positions: Tensor
    key_positions: Tensor
    hidden: Tensor | None

    @classmethod
    def from_rows(cls, steps: range, rows: Sequence[WindowRow], device: torch.device) -> WindowView:
        """Pack the integers of R windows, one per step of `steps`, into tensors on `device`."""
        keys = torch.tensor([row.key_positions for row in rows])
        hidden = keys < 0
        return cls(
            steps=steps,
            slots=torch.tensor([row.query_slots for row in rows]).to(device),
            query_positions=torch.tensor([row.query_positions for row in rows]).to(device),
            key_positions=keys.clamp(min=0).to(device),
            hidden=hidden.to(device) if hidden.any() else None,
        )

    def select(self, index: int) -> WindowView:
        """Return the view of only the `index`-th step."""
        one = slice(index, index + 1)
        return WindowView(
            steps=self.steps[one],
            slots=self.slots[one],
            query_positions=self.query_positions[one],
            key_positions=self.key_positions[one],
            hidden=None if self.hidden is None else self.hidden[one],
        )


def windowed_attention(
    query: Tensor, keys: Tensor, values: Tensor, positions: PositionTables, view: WindowView
) -> Tensor:
    """Attend from the current frames to every visible slot, separately for each pixel.

    Warm-up and streaming (Live2Diff, listings 3 and 4) differ only in `view`.

    Args:
        query: [R, HW, heads, Q, d] without positions.
        keys, values: [R, HW, heads, L, d] without positions, the current frames included.
        positions: the tables in which the positions of `view` are looked up.
        view: which slots the frames see, and at which positions.

    Returns:
        [R, HW, heads, Q, d] in the dtype of `query`.
    """
    pe_q = rearrange(positions.query[view.query_positions], "r q heads d -> r 1 heads q d")
    pe_k = positions.key[view.key_positions]  # [R, L, heads, d]
    pe_v = positions.value[view.key_positions]  # [R, L, heads, d]
    # Scale before the product, so that float16 scores cannot overflow.
    query = (query + pe_q) * query.shape[-1] ** -0.5
    scores = query @ keys.mT + torch.einsum("rxhqd,rlhd->rxhql", query, pe_k)
    scores = scores.float()
    if view.hidden is not None:
        # The values are masked, too, because NaN in a hidden slot would reach the output.
        scores = scores.masked_fill(rearrange(view.hidden, "r l -> r 1 1 1 l"), float("-inf"))
        values = values.masked_fill(rearrange(view.hidden, "r l -> r 1 1 l 1"), 0)
    weights = scores.softmax(dim=-1).to(values.dtype)
    return weights @ values + torch.einsum("rxhql,rlhd->rxhqd", weights, pe_v)
