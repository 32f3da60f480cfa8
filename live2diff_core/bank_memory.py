"""StreamV2V's memory of a stream: a feature bank per self-attention, conditioning and step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .feature_bank import ALL_LEVELS, Bank, BankConfig, BankKind, Update, fuse, plan_update
from .step_plan import FeatureSizeError

# (frame, step, layer, count) to a random order of so many tokens.
OrderFn = Callable[[int, int, str, int], Tensor]
Key = tuple[str, str, int]


class BankMemory:
    """All banks of one stream.

    A frame is seen by itself: frames of one group, too, meet the bank one after another.

    Args:
        config: kind, interval and strengths.
        order: random orders for merging.
    """

    def __init__(self, config: BankConfig, order: OrderFn) -> None:
        """Start with nothing remembered."""
        self.config = config
        self.order = order
        self._banks: dict[Key, Bank] = {}
        # Banks with the frames of the planned calls; nobody else sees them before `commit`.
        self.pending: dict[Key, Bank] = {}
        self._tokens: dict[Key, int] = {}

    def group(self, frame: int) -> range:
        """No frame needs another beside it."""
        return range(frame, frame + 1)

    def plan(self, groups: Sequence[range], steps: range, device: torch.device) -> BankStep:
        """Prepare a call in which group r of `groups` is at step r of `steps`."""
        return BankStep(self, tuple(zip(steps, groups, strict=True)))

    def commit(self) -> None:
        """Keep what the planned calls took in."""
        self._banks |= self.pending
        self.pending = {}

    def discard(self) -> None:
        """Forget what the planned calls took in."""
        self.pending = {}

    def reset(self) -> None:
        """Forget the stream and free its memory."""
        self._banks.clear()
        self.pending.clear()
        self._tokens.clear()

    def bank(self, key: Key, like: Tensor) -> Bank:
        """Get the bank of (conditioning, layer, step), empty at first.

        Args:
            key: whose bank.
            like: [N, C] of the current frame; a loaded bank is moved to its device and type.

        Raises:
            FeatureSizeError: `like` has another number of tokens than the frames before.
        """
        bank = self._banks.get(key, Bank())
        before = self._tokens.setdefault(key, len(like))
        # Of a loaded bank's tokens it is not known how many are one frame's.
        fits = bank.tokens % len(like) == 0 and bank.tokens <= self.config.frames * len(like)
        if before != len(like) or not fits:
            raise FeatureSizeError(
                f"The UNet's features at {key[1]} changed to {len(like)} pixels within a stream. A "
                "node that shrinks them at some steps only (PatchModelAddDownscale, Kohya Deep "
                "Shrink) cannot be used with the feature bank: remove it."
            )
        moved = bank.to(like)
        if moved is not bank:
            self._banks[key] = moved
        return moved

    def state_dict(self) -> dict[str, Tensor]:
        """Settings and banks; not copied. Banks are called `conditioning/layer/step/part`."""
        state = {"settings": self._numbers()}
        for (conditioning, layer, step), bank in self._banks.items():
            name = f"{conditioning}/{layer}/{step}"
            state |= {f"{name}/{part}": tensor for part, tensor in bank.parts().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up a saved stream.

        Raises:
            ValueError: it was made with other settings.
        """
        if not torch.equal(state["settings"], self._numbers()):
            raise ValueError(
                "the saved stream's feature bank has another type, size, interval or other "
                "levels than this MODEL's."
            )
        self.reset()
        parts: dict[Key, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name != "settings":
                conditioning, layer, step, part = name.rsplit("/", 3)
                parts.setdefault((conditioning, layer, int(step)), {})[part] = tensor
        self._banks = {key: Bank(**tensors) for key, tensors in parts.items()}

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return sum(bank.nbytes for bank in (*self._banks.values(), *self.pending.values()))

    def _numbers(self) -> Tensor:
        kind = list(BankKind).index(self.config.kind)
        config = self.config
        levels = [level in used for used in (config.fuse, config.extend) for level in ALL_LEVELS]
        return torch.tensor([kind, config.frames, config.interval, *map(int, levels)])


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
