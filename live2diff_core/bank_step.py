"""One model call as the feature banks see it: who meets which bank, and what is taken in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from torch import Tensor

from .feature_bank import Bank, Update, fuse, plan_update
from .step_plan import FeatureSizeError

if TYPE_CHECKING:
    from .bank_memory import BankMemory

# Whose bank: conditioning, layer, denoising step.
Key = tuple[str, str, int]


@dataclass(frozen=True)
class FrameMeeting:
    """One row of a call meeting its bank.

    Attributes:
        row: place in the batch.
        tokens: N, of the frame.
        key: whose bank it is.
        bank: what the frame sees.
        update: how the frame is taken in after use; None if it is not.
    """

    row: int
    tokens: int
    key: Key
    bank: Bank
    update: Update | None


@dataclass(frozen=True)
class BankStep:
    """What the self-attentions read and write during one model call.

    Attributes:
        memory: the stream's banks.
        groups: (denoising step, frames) in row order.
    """

    memory: BankMemory
    groups: tuple[tuple[int, range], ...]
    _meetings: dict[str, list[FrameMeeting]] = field(default_factory=dict)

    def select(self, index: int) -> BankStep:
        """Keep only the group that is at the `index`-th step of this call."""
        return BankStep(self.memory, (self.groups[index],))

    @property
    def rows(self) -> int:
        """N, frames in the call."""
        return sum(len(frames) for _, frames in self.groups)

    def meet(
        self,
        layer: str,
        conditionings: Sequence[str],
        keys: Tensor,
        values: Tensor,
        fuses: bool,
    ) -> list[FrameMeeting]:
        """Let every row see its bank, and take frames in that are due.

        Args:
            layer: name of the attention.
            conditionings: B names, in batch order.
            keys, values: [B*N, tokens, C].
            fuses: whether `fuse` follows with the same rows.
        """
        meetings: list[FrameMeeting] = []
        for number, conditioning in enumerate(conditionings):
            row = number * self.rows
            for step, frames in self.groups:
                key = (conditioning, layer, step)
                stop = row + len(frames)
                meetings += self._meet_group(key, frames, range(row, stop), keys, values)
                row = stop
        if fuses:
            self._meetings[layer] = meetings
        return meetings

    def _meet_group(
        self, key: Key, frames: range, rows: range, keys: Tensor, values: Tensor
    ) -> Iterator[FrameMeeting]:
        bank = self.memory.bank(key, keys[rows[0]])
        for frame, row in zip(frames, rows, strict=True):
            update = self._update(key, frame, bank, keys[row])
            yield FrameMeeting(row, len(keys[row]), key, bank, update)
            if update is not None:
                new_keys = update(bank.keys, keys[row])
                new_values = update(bank.values, values[row])
                # The features follow in `fuse`: they are known only after the attention.
                bank = Bank(new_keys, new_values, bank.features)
                self.memory.pending[key] = bank

    def _update(self, key: Key, frame: int, bank: Bank, keys: Tensor) -> Update | None:
        memory, (_, layer, step) = self.memory, key
        if frame % memory.config.interval:
            return None
        return plan_update(
            memory.config, bank.keys, keys, lambda count: memory.order(frame, step, layer, count)
        )

    def fuse(self, layer: str, features: Tensor) -> Tensor:
        """Fuse an attention's output with the bank, row by row, and take it in where it is due.

        Args:
            layer: name of the attention; its rows have met their banks before.
            features: [B*N, tokens, C].

        Raises:
            FeatureSizeError: other tokens than those that met the bank.
        """
        config, pending, out = self.memory.config, self.memory.pending, features.clone()
        # Features that frames of this call brought, for those after them.
        brought: dict[Key, Tensor] = {}
        for meeting in self._meetings.pop(layer, []):
            own, key = features[meeting.row], meeting.key
            if len(own) != meeting.tokens:
                raise FeatureSizeError(
                    f"Another node merged {meeting.tokens} tokens of {layer} into {len(own)} "
                    "(TomePatchModel does that). Put it before 'Apply Feature Bank'."
                )
            bank = brought.get(key, meeting.bank.features)
            if bank is not None:
                strength, threshold = config.fusion_strength, config.similarity_threshold
                out[meeting.row] = fuse(own, bank, strength, threshold)
            if meeting.update is not None:
                brought[key] = meeting.update(bank, own)
                pending[key] = replace(pending[key], features=brought[key])
        return out


def extend(own: Tensor, banks: Sequence[Tensor | None]) -> Tensor:
    """Put each row's bank behind its own tokens: [R, N, C] and R times [M, C] to [R, N + M, C]."""
    remembered = [bank for bank in banks if bank is not None]
    if not remembered:
        return own
    rows, tokens, channels = own.shape
    out = own.new_empty(rows, tokens + len(remembered[0]), channels)
    out[:, :tokens] = own
    for row, bank in enumerate(remembered):
        out[row, tokens:] = bank
    return out


def by_bank_size(meetings: Sequence[FrameMeeting]) -> dict[int, list[FrameMeeting]]:
    """Sort rows by the tokens in their banks: those of one size can share an attention call."""
    sizes: dict[int, list[FrameMeeting]] = {}
    for meeting in meetings:
        sizes.setdefault(meeting.bank.tokens, []).append(meeting)
    return sizes
