"""Attention of the current frames over a window of cached ones. Pure functions of tensors.

Live2Diff adds a position's sinusoid before the linear projections. Because of their linearity,
`to_k(x + pe) = to_k(x) + to_k(pe)`, so `q.(k + pe_k) = q.k + q.pe_k` and
`sum a (v + pe_v) = sum a v + sum a pe_v`: positions become a small bias of the scores and a small
term of the output, and no tensor of the cache's size is ever copied to add them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..stream.call_plan import PackedIntegers
from .window import WindowRow


@dataclass(frozen=True)
class WindowView:
    """The windows of a model call as tensors, made once per call and read by every attention.

    Attributes:
        steps: R consecutive denoising steps, one per group in flight.
        slots: [R, 1, 1, Q, 1] int64, cache slots that the current frames are written to.
        query_positions: [R, Q] int64, positions of the current frames.
        key_positions: [R, Q, L] int64, positions at which each current frame sees the cached ones;
            0 in slots that it does not see.
        hidden: [R, Q, L] bool, the slots that each current frame does not see; None where every
            frame sees all.
        limits: [R, 1, 1, 1, L], the largest score of every slot: -inf in those of frames that came
            out as NaN or infinite, which hides them from other frames, and inf in the others; None
            where that is not followed. What hidden slots hold is finite.
    """

    steps: range
    slots: Tensor
    query_positions: Tensor
    key_positions: Tensor
    hidden: Tensor | None
    limits: Tensor | None = None

    @staticmethod
    def integers(rows: Sequence[WindowRow]) -> list[int]:
        """List the integers of R windows, for `from_integers`."""
        slots = [slot for row in rows for slot in row.query_slots]
        queries = [position for row in rows for position in row.query_positions]
        keys = [p for row in rows for positions in row.key_positions for p in positions]
        return slots + queries + keys

    @classmethod
    def from_integers(
        cls, steps: range, shape: tuple[int, int, int], full: bool, integers: PackedIntegers
    ) -> WindowView:
        """Read what `integers` listed for R windows, one per step of `steps`.

        Args:
            steps: R denoising steps.
            shape: (R, Q, L).
            full: whether every frame sees every slot, as in the steady state: nothing to mask.
            integers: begins with those of the windows.
        """
        groups, queries, window = shape
        slots = integers.take(groups, 1, 1, queries, 1)
        positions = integers.take(groups, queries)
        keys = integers.take(groups, queries, window)
        if full:
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
            limits=None if self.limits is None else self.limits[one],
        )


@dataclass(frozen=True)
class PlacedPositions:
    """One attention's projected positions in a call: those of the queries, keys and values.

    Attributes:
        query: [R, heads, 1, Q, d] of the current frames, times d^-0.5.
        key: [R*heads*Q, d, L] of the cached frames, as each current frame sees them.
        value: [R*heads*Q, L, d] likewise.
    """

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True)
class WidthTables:
    """The projected position tables of all attentions of one width.

    Attributes:
        indices: their places among all attentions, A of them.
        query: [A, heads, P, d] tables of the queries, times d^-0.5.
        key_value: [2*A, heads, P, d] tables of the keys, then of the values.
    """

    indices: tuple[int, ...]
    query: Tensor
    key_value: Tensor

    def place(self, view: WindowView) -> Iterable[tuple[int, PlacedPositions]]:
        """Look up the positions of a call for all attentions at once."""
        (groups, queries), slots = view.query_positions.shape, view.key_positions.shape[-1]
        count, heads, _, width = self.query.shape
        query = self.query.index_select(2, view.query_positions.flatten())
        query = query.view(count, heads, groups, 1, queries, width).transpose(1, 2)
        both = self.key_value.index_select(2, view.key_positions.flatten())
        both = both.view(2 * count, heads, groups, queries, slots, width)
        both = both.transpose(1, 2).reshape(2, count, -1, slots, width)
        parts = query.unbind(), both[0].mT.unbind(), both[1].unbind()
        placed = (PlacedPositions(*each) for each in zip(*parts, strict=True))
        return zip(self.indices, placed, strict=True)


@dataclass(frozen=True)
class PositionTables:
    """The projected position tables of all attentions."""

    by_width: tuple[WidthTables, ...]

    @classmethod
    def join(cls, tables: Sequence[Sequence[Tensor]], heads: int) -> PositionTables:
        """Join tables (query, key, value) of [P, C] each, one triple per attention."""
        widths: dict[int, list[int]] = {}
        for index, (query, _, _) in enumerate(tables):
            widths.setdefault(query.shape[-1] // heads, []).append(index)

        def stacked(indices: Sequence[int], part: int) -> Tensor:
            split = [tables[i][part].unflatten(-1, (heads, -1)).transpose(0, 1) for i in indices]
            return torch.stack(split)

        return cls(
            tuple(
                WidthTables(
                    tuple(indices),
                    # Scaled before any product, so that float16 scores cannot overflow.
                    stacked(indices, 0) * _scale(width),
                    torch.cat([stacked(indices, 1), stacked(indices, 2)]),
                )
                for width, indices in widths.items()
            )
        )

    def place(self, view: WindowView) -> list[PlacedPositions]:
        """Look up the positions of a call once for all attentions, in their order."""
        placed = dict(pair for tables in self.by_width for pair in tables.place(view))
        return [placed[index] for index in range(len(placed))]


def _scale(width: int) -> float:
    """Return the factor of scores between heads of `width` channels."""
    return width**-0.5


def windowed_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    positions: PlacedPositions,
    hidden: Tensor | None,
    limits: Tensor | None = None,
) -> Tensor:
    """Attend from the current frames to every visible slot, separately for each pixel.

    Warm-up and streaming (Live2Diff, listings 3 and 4) differ only in the window. Products with the
    cache run per pixel, those with positions per query, so tensors alternate between two orders,
    which are the same when groups have one frame.

    Args:
        query: [R, heads, HW, Q, d] without positions.
        keys, values: [R, heads, HW, L, d] without positions, the current frames included.
        positions: the positions of the call's window.
        hidden: [R, Q, L] bool, see `WindowView`.
        limits: [R, 1, 1, 1, L], see `WindowView`.

    Returns:
        [R, heads, HW, Q, d] in the dtype of `query`.
    """
    groups, heads, pixels, queries, width = query.shape
    pixelwise = (groups, heads, pixels, queries)

    def by_query(x: Tensor) -> Tensor:
        """[R*heads*HW, Q, n] to [R*heads*Q, HW, n]."""
        if queries == 1:
            return x.view(groups * heads, pixels, -1)
        ordered = x.view(*pixelwise, -1).transpose(2, 3)
        return ordered.reshape(groups * heads * queries, pixels, -1)

    def by_pixel(x: Tensor) -> Tensor:
        """[R*heads*Q, HW, n] to [R*heads*HW, Q, n]."""
        if queries == 1:
            return x.view(groups * heads * pixels, 1, -1)
        ordered = x.view(groups, heads, queries, pixels, -1).transpose(2, 3)
        return ordered.reshape(groups * heads * pixels, queries, -1)

    query = torch.add(positions.query, query, alpha=_scale(width)).reshape(-1, queries, width)
    scores = torch.bmm(query, keys.flatten(0, 2).mT)
    scores = torch.baddbmm(by_query(scores), by_query(query), positions.key)
    if limits is not None:
        # Scores of what has overflowed may be infinite, to which nothing can be added. A limit of
        # inf changes nothing, and takes an eighth of the time of filling by a mask, on a CPU.
        scores.view(groups, heads, queries, pixels, -1).clamp_max_(limits)
    if hidden is not None:
        seen = scores.view(groups, heads, queries, pixels, -1)
        scores = seen.masked_fill(hidden[:, None, :, None], float("-inf")).flatten(0, 2)
        # NaN in a slot that no frame sees would reach the output in spite of its weight of 0.
        values = values.masked_fill(hidden.all(dim=1)[:, None, None, :, None], 0)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
    out = torch.bmm(by_pixel(weights), values.flatten(0, 2))
    out = torch.baddbmm(by_query(out), weights, positions.value)
    return out.view(groups, heads, queries, pixels, width).transpose(2, 3)
