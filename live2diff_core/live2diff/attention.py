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

from ..stream.call_plan import PackedIntegers
from .window import WindowRow


@dataclass(frozen=True)
class WindowView:
    """The windows of a model call as tensors, made once per call and read by every attention.

    Attributes:
        steps: R consecutive denoising steps, one per group in flight.
        slots: [R, Q] int64, cache slots that the current frames are written to.
        query_positions: [R, Q] int64, positions of the current frames.
        key_positions: [R, Q, L] int64, positions at which each current frame sees the cached ones;
            0 in slots that it does not see.
        hidden: [R, Q, L] bool, the slots that each current frame does not see; None where every
            frame sees all.
    """

    steps: range
    slots: Tensor
    query_positions: Tensor
    key_positions: Tensor
    hidden: Tensor | None

    @staticmethod
    def integers(rows: Sequence[WindowRow]) -> list[int]:
        """List the integers of R windows, for `from_integers`."""
        slots = [slot for row in rows for slot in row.query_slots]
        queries = [position for row in rows for position in row.query_positions]
        keys = [p for row in rows for positions in row.key_positions for p in positions]
        return slots + queries + keys

    @classmethod
    def from_integers(
        cls, steps: range, rows: Sequence[WindowRow], integers: PackedIntegers
    ) -> WindowView:
        """Read what `integers` listed for R windows, one per step of `steps`."""
        groups, queries = len(rows), len(rows[0].query_slots)
        slots, positions = integers.take(groups, queries), integers.take(groups, queries)
        keys = integers.take(groups, queries, len(rows[0].key_positions[0]))
        # In the steady state every slot is seen, and nothing needs to be masked.
        if all(position >= 0 for row in rows for seen in row.key_positions for position in seen):
            return cls(steps, slots, positions, keys, None)
        return cls(steps, slots, positions, keys.clamp(min=0), keys < 0)

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


@dataclass(frozen=True)
class PlacedPositions:
    """One attention's projected positions in a call: those of the queries, keys and values.

    Attributes:
        query: [R, Q, heads, d] of the current frames.
        key, value: [R, Q, L, heads, d] of the cached frames, as each current frame sees them.
    """

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class PositionTables:
    """The projections of the position tables of all attentions, side by side.

    Attributes:
        query: [P, sum of C] the queries' tables.
        key_value: [P, 2 * sum of C] the keys' and values' tables in turn.
        heads: heads of each attention.
        widths: C of each attention.
    """

    query: Tensor
    key_value: Tensor
    heads: int
    widths: tuple[int, ...]

    @classmethod
    def join(cls, tables: Sequence[Sequence[Tensor]], heads: int) -> PositionTables:
        """Join tables (query, key, value) of [P, C] each, one triple per attention."""
        return cls(
            query=torch.cat([query for query, _, _ in tables], dim=-1),
            key_value=torch.cat([table for _, *pair in tables for table in pair], dim=-1),
            heads=heads,
            widths=tuple(query.shape[-1] for query, _, _ in tables),
        )

    def place(self, view: WindowView) -> list[PlacedPositions]:
        """Look up the positions of a call once for all attentions."""
        queries = _at(self.query, view.query_positions).split(self.widths, dim=-1)
        doubled = [width for width in self.widths for _ in range(2)]
        pairs = iter(_at(self.key_value, view.key_positions).split(doubled, dim=-1))
        heads = (self.heads, -1)
        return [
            PlacedPositions(*(part.unflatten(-1, heads) for part in (query, key, next(pairs))))
            for query, key in zip(queries, pairs, strict=True)
        ]


def _at(table: Tensor, positions: Tensor) -> Tensor:
    """Look up `positions`, any shape, in a table [P, C]: their shape and C."""
    return table.index_select(0, positions.flatten()).unflatten(0, positions.shape)


def windowed_attention(
    query: Tensor, keys: Tensor, values: Tensor, positions: PlacedPositions, hidden: Tensor | None
) -> Tensor:
    """Attend from the current frames to every visible slot, separately for each pixel.

    Warm-up and streaming (Live2Diff, listings 3 and 4) differ only in the window.

    Args:
        query: [R, HW, heads, Q, d] without positions.
        keys, values: [R, HW, heads, L, d] without positions, the current frames included.
        positions: the positions of the call's window.
        hidden: [R, Q, L] bool, see `WindowView`.

    Returns:
        [R, HW, heads, Q, d] in the dtype of `query`.
    """
    # Scale before the product, so that float16 scores cannot overflow.
    placed = rearrange(positions.query, "r q heads d -> r 1 heads q d")
    query = (query + placed) * query.shape[-1] ** -0.5
    scores = query @ keys.mT + torch.einsum("rxhqd,rqlhd->rxhql", query, positions.key)
    scores = scores.float()
    if hidden is not None:
        scores = scores.masked_fill(rearrange(hidden, "r q l -> r 1 1 q l"), float("-inf"))
        # NaN in a slot that no frame sees would reach the output in spite of its weight of 0.
        unseen = rearrange(hidden.all(dim=1), "r l -> r 1 1 l 1")
        values = values.masked_fill(unseen, 0)
    weights = scores.softmax(dim=-1).to(values.dtype)
    return weights @ values + torch.einsum("rxhql,rqlhd->rxhqd", weights, positions.value)
