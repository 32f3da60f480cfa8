"""What the self-attentions read from the banks and write to them during one model call.

Rows of a call are B conditionings of N frames each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from ..stream.call_plan import FeatureSizeError, Pass
from ..stream.faults import is_finite
from .bank import BankConfig
from .fusion import fuse
from .layer_banks import LayerBanks
from .stream_banks import StreamBanks
from .token_orders import CallOrders, Order
from .update import Update, plan_update, unless


@dataclass(frozen=True)
class Meeting:
    """Adjacent rows of a call, R frames of one pass, and the equally full banks that they see.

    Attributes:
        rows: their indices in the batch.
        banks: the banks of their attention.
        steps: their denoising steps.
        keys, values: [R, M, C] of the banks before the frames; M is 0 while they are empty.
        updates: (index among the rows, update) of the frames that enter their bank.
    """

    rows: range
    banks: LayerBanks
    steps: range
    keys: Tensor
    values: Tensor
    updates: tuple[tuple[int, Update], ...]

    @property
    def tokens(self) -> int:
        """The number of tokens in each bank, M."""
        return self.keys.shape[1]


@dataclass(frozen=True)
class _Own:
    """The keys and values of all rows at an attention, [B*N, HW, C], and the banks of one pass."""

    layer: int
    banks: LayerBanks
    keys: Tensor
    values: Tensor


@dataclass(frozen=True)
class BankCall:
    """The banks that the self-attentions read and write during one model call.

    Attributes:
        config: the configuration of the bank.
        banks: the stream's.
        groups: (denoising step, frames) of each group, in the order of the rows.
        orders: the orders of tokens for merging.
    """

    config: BankConfig
    banks: StreamBanks
    groups: tuple[tuple[int, range], ...]
    orders: CallOrders
    _to_fuse: dict[int, list[Meeting]] = field(default_factory=dict)

    def select(self, index: int) -> BankCall:
        """Return the call with only the group at its `index`-th step."""
        return BankCall(self.config, self.banks, (self.groups[index],), self.orders)

    def settle(self, bad: Tensor) -> None:
        """Keep `bad` rows, [N] bool, out of the banks.

        Frames of one group have met the bank one after another already, see `_meet_group`.
        """
        rows = iter(bad.unbind())
        for step, frames in self.groups:
            of_group = [next(rows) for _ in frames]
            if len(of_group) == 1:
                self.banks.settle(step, of_group[0])

    @property
    def row_count(self) -> int:
        """The number of rows of one conditioning, N."""
        return sum(len(frames) for _, frames in self.groups)

    def update(
        self, layer: int, passes: Sequence[Pass], keys: Tensor, values: Tensor
    ) -> list[Meeting]:
        """Update the banks, and return for all rows, in order, the banks before the update.

        Args:
            layer: index of the attention.
            passes: the B passes, in batch order.
            keys, values: [B*N, HW, C].
        """
        meetings: list[Meeting] = []
        for number, place in enumerate(passes):
            banks, start = self.banks.at(place, layer, keys.shape[1]), number * self.row_count
            own = _Own(layer, banks, keys, values)
            for run in self._runs(banks):
                if len(run[0][1]) > 1:
                    meetings += self._meet_group(own, *run[0], start)
                else:
                    meetings.append(self._meet_frames(own, run, start))
                start += sum(len(frames) for _, frames in run)
        if self.banks.layers[layer].fuses:
            self._to_fuse[layer] = meetings
        return meetings

    def _runs(self, banks: LayerBanks) -> Iterator[list[tuple[int, range]]]:
        """Split the groups: single frames with equally full banks meet them together."""

        def alike(group: tuple[int, range]) -> int:
            step, frames = group
            return banks.filled[step] if len(frames) == 1 else -1 - step

        return (list(run) for _, run in groupby(self.groups, alike))

    def _meet_frames(self, own: _Own, run: list[tuple[int, range]], start: int) -> Meeting:
        """Meet the banks with single frames at consecutive steps, from row `start`."""
        steps, updates = range(run[0][0], run[-1][0] + 1), []
        keys, values = own.banks.seen("keys", steps), own.banks.seen("values", steps)
        for index, (step, (frame,)) in enumerate(run):
            if frame % self.config.interval == 0:
                past = keys[index], values[index]
                updates.append((index, self._take_in(own, step, frame, start + index, past)))
        rows = range(start, start + len(run))
        return Meeting(rows, own.banks, steps, keys, values, tuple(updates))

    def _meet_group(self, own: _Own, step: int, frames: range, start: int) -> Iterator[Meeting]:
        """Meet a bank with the frames of a group, one after another like single frames."""
        steps = range(step, step + 1)
        keys, values = own.banks.seen("keys", steps), own.banks.seen("values", steps)
        for row, frame in enumerate(frames, start):
            past, updates = (keys, values), []
            if frame % self.config.interval == 0:
                # The next frame sees the bank in this call, before it is known how this one ends.
                bad = ~(is_finite(own.keys[row]) & is_finite(own.values[row]))
                past_of_row = keys[0], values[0]
                updates.append((0, self._take_in(own, step, frame, row, past_of_row, bad)))
                pending = own.banks.pending[step]
                keys, values = pending["keys"][None], pending["values"][None]
            yield Meeting(range(row, row + 1), own.banks, steps, *past, tuple(updates))

    def _take_in(
        self,
        own: _Own,
        step: int,
        frame: int,
        row: int,
        bank: tuple[Tensor, Tensor],
        bad: Tensor | None = None,
    ) -> Update:
        """Let a frame's keys and values enter a bank; `fuse` updates the features likewise.

        A frame that is known to be `bad`, 0-d bool, leaves the bank as it is.
        """
        keys, values = own.keys[row], own.values[row]

        def permutation(count: int) -> Tensor:
            return self.orders.of(Order(frame, step, own.layer, count))

        update = plan_update(self.config, bank[0], keys, permutation)
        if bad is not None:
            update = unless(bad, update)
        own.banks.pending[step] = {
            "keys": update(bank[0], keys),
            "values": update(bank[1], values),
        }
        return update

    def fuse(self, layer: int, features: Tensor) -> Tensor:
        """Fuse an attention's output with the banks, and update their features.

        Args:
            layer: index of the attention, whose `update` came before.
            features: [B*N, HW, C] output of the attention.

        Returns:
            [B*N, HW, C].

        Raises:
            FeatureSizeError: the attention's output has another HW than its input.
        """
        meetings = self._to_fuse.pop(layer, [])
        if not meetings:
            return features
        tokens, found = meetings[0].banks.tokens, features.shape[1]
        if found != tokens:
            raise FeatureSizeError(
                f"Another node merged {tokens} tokens of {self.banks.layers[layer].name} into "
                f"{found} (TomePatchModel does that). Put it before 'Apply Feature Bank'."
            )
        fused = [self._fuse(meeting, _at(features, meeting.rows)) for meeting in meetings]
        return _joined(fused)

    def _fuse(self, meeting: Meeting, own: Tensor) -> Tensor:
        """Fuse the output of some rows, [R, HW, C]."""
        banks, steps, config = meeting.banks, meeting.steps, self.config
        # Earlier frames of the same group have updated the features already.
        earlier = banks.pending.get(steps.start, {}).get("features")
        seen = banks.seen("features", steps) if earlier is None else earlier[None]
        for index, update in meeting.updates:
            banks.pending[steps[index]]["features"] = update(seen[index], own[index])
        if not seen.shape[1]:
            return own
        return fuse(own, seen, config.fusion_strength, config.similarity_threshold)


# Maps queries [R, HW, C], keys and values [R, HW + M, C] to the attention's output [R, HW, C].
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def attend_with_banks(
    query: Tensor, keys: Tensor, values: Tensor, meetings: Sequence[Meeting], attend: Attend
) -> Tensor:
    """Let queries also see the banks that their rows meet; adjacent banks of one size together.

    Args:
        query, keys, values: [B*N, HW, C].
        meetings: from `BankCall.update`.
        attend: the attention.

    Returns:
        [B*N, HW, C].
    """
    out = []
    for _, alike in groupby(meetings, lambda meeting: meeting.tokens):
        run = list(alike)
        rows = range(run[0].rows.start, run[-1].rows.stop)
        seen = [meeting.keys for meeting in run], [meeting.values for meeting in run]
        own = _at(keys, rows), _at(values, rows)
        out.append(attend(_at(query, rows), *map(extend, own, seen)))
    return _joined(out)


def extend(own: Tensor, banks: Sequence[Tensor]) -> Tensor:
    """Append to the tokens of all rows those of their banks.

    Args:
        own: [R, HW, C].
        banks: [r, M, C] each, R rows together.

    Returns:
        [R, HW + M, C]; `own` itself if M is 0.
    """
    rows, tokens, channels = own.shape
    if not banks[0].shape[1]:
        return own
    if len(banks) == 1:
        return torch.cat([own, banks[0]], 1)
    out = own.new_empty(rows, tokens + banks[0].shape[1], channels)
    out[:, :tokens].copy_(own)
    start = 0
    for bank in banks:
        out[start : start + len(bank), tokens:].copy_(bank)
        start += len(bank)
    return out


def _at(tensor: Tensor, rows: range) -> Tensor:
    return tensor if len(rows) == len(tensor) else tensor[rows.start : rows.stop]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
