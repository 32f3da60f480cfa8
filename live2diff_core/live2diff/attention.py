"""Attention of the current frames over a window of cached ones. Pure functions of tensors.

Live2Diff adds a position's sinusoid before the linear projections. These being linear,
`to_k(x + pe) = to_k(x) + to_k(pe)`, so `q.(k + pe_k) = q.k + q.pe_k` and
`sum a (v + pe_v) = sum a v + sum a pe_v`: positions become a small bias on the scores and a small
term on the output, and nothing of the cache's size is ever copied to add them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .window import WindowRow


@dataclass(frozen=True)
class PositionTables:
    """Projected position tables of one attention: [P, heads, d] each, P positions."""

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class WindowView:
    """A step's windows as tensors, made once per model call and read by every attention.

    Attributes:
        steps: R consecutive denoising steps, one per group in flight.
        slots: [R, Q] int64, where the Q current frames of each group are written.
        query_positions: [R, Q] int64.
        key_positions: [R, L] int64, 0 where hidden.
        mask: [R, L] float32, 0 where visible and -inf where hidden.
    """

    steps: range
    slots: Tensor
    query_positions: Tensor
    key_positions: Tensor
    mask: Tensor

    @classmethod
    def from_rows(cls, steps: range, rows: Sequence[WindowRow], device: torch.device) -> WindowView:
        """Turn the integers of R windows, one per step of `steps`, into tensors on `device`."""
        keys = torch.tensor([row.key_positions for row in rows])  # [R, L]
        hidden = keys < 0
        mask = torch.zeros(keys.shape).masked_fill(hidden, float("-inf"))
        return cls(
            steps=steps,
            slots=torch.tensor([row.query_slots for row in rows]).to(device),
            query_positions=torch.tensor([row.query_positions for row in rows]).to(device),
            key_positions=keys.clamp(min=0).to(device),
            mask=mask.to(device),
        )

    def select(self, index: int) -> WindowView:
        """Keep only the `index`-th step."""
        one = slice(index, index + 1)
        return WindowView(
            steps=self.steps[one],
            slots=self.slots[one],
            query_positions=self.query_positions[one],
            key_positions=self.key_positions[one],
            mask=self.mask[one],
        )


def windowed_attention(
    query: Tensor, keys: Tensor, values: Tensor, positions: PositionTables, view: WindowView
) -> Tensor:
    """Attend from the current frames to every visible slot, each pixel by itself.

    Live2Diff, listings 3 (warm-up) and 4 (streaming); both are this function.

    Args:
        query: [R, HW, heads, Q, d] without positions.
        keys, values: [R, HW, heads, L, d] without positions, the current frames included.
        positions: tables the positions of `view` are looked up in.
        view: who sees whom.

    Returns:
        [R, HW, heads, Q, d] in the dtype of `query`.
    """
    pe_q = positions.query[view.query_positions]  # [R, Q, heads, d]
    pe_k = positions.key[view.key_positions]  # [R, L, heads, d]
    pe_v = positions.value[view.key_positions]  # [R, L, heads, d]
    scale = query.shape[-1] ** -0.5
    # Scaled before the product, so that float16 scores cannot overflow.
    query = (query + pe_q.transpose(1, 2).unsqueeze(1)) * scale
    scores = query @ keys.transpose(-1, -2)  # [R, HW, heads, Q, L]
    scores = scores + torch.einsum("rxhqd,rlhd->rxhql", query, pe_k)
    scores = scores.float() + view.mask[:, None, None, None, :]
    weights = scores.softmax(dim=-1).to(values.dtype)
    return weights @ values + torch.einsum("rxhql,rlhd->rxhqd", weights, pe_v)
