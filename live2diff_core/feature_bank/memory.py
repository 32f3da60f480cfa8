"""StreamV2V's memory of a stream: a feature bank per self-attention, conditioning and step.

Rows of a call are B conditionings of N frames each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..stream.call_plan import FeatureSizeError, OpenedShape, PackedIntegers, Pass
from .bank import ALL_LEVELS, Bank, BankConfig, BankKind, Update, fuse, plan_update

# Maps (frame, step, layer, count) to a random permutation of `count` tokens.
PermutationFn = Callable[[int, int, str, int], Tensor]
# The conditioning, layer and denoising step of a bank.
Key = tuple[str, str, int]


class BankMemory:
    """All banks of one stream. Even frames of one group see and update them one after another.

    Args:
        config: kind, interval and strengths.
        permutation: draws random permutations of tokens, for merging.
    """

    def __init__(self, config: BankConfig, permutation: PermutationFn) -> None:
        """Start with empty banks."""
        self.config = config
        self.permutation = permutation
        self._banks: dict[Key, Bank] = {}
        # Banks that the planned calls updated; other calls see them only after `commit`.
        self.pending: dict[Key, Bank] = {}
        self._tokens: dict[Key, int] = {}
        self._shape: OpenedShape | None = None

    def open(self, shape: OpenedShape) -> None:
        """Prepare for what runs."""
        self._shape = shape

    def pass_name(self, place: Pass) -> str:
        """Return the name of a pass in saved streams."""
        assert self._shape is not None, "the stream has not been opened for a model"
        return self._shape.pass_name(*place)

    def to(self, device: torch.device) -> None:
        """Move all banks to `device`; `bank` moves them to the model's."""
        self._banks = {
            key: Bank(**{name: part.to(device) for name, part in bank.parts().items()})
            for key, bank in self._banks.items()
        }

    def group(self, frame: int) -> range:
        """Return `frame` alone: a bank needs no groups."""
        return range(frame, frame + 1)

    def integers(self, groups: Sequence[range], steps: range) -> list[int]:
        """Return nothing: banks are reached by step alone."""
        return []

    def plan(self, groups: Sequence[range], steps: range, integers: PackedIntegers) -> BankCall:
        """Prepare a model call in which group r of `groups` is at step r of `steps`."""
        return BankCall(self, tuple(zip(steps, groups, strict=True)))

    def commit(self) -> None:
        """Keep the banks that the planned calls updated."""
        self._banks |= self.pending
        self.pending = {}

    def discard(self) -> None:
        """Drop the banks that the planned calls updated."""
        self.pending = {}

    def reset(self) -> None:
        """Forget the stream and drop all banks."""
        self._banks.clear()
        self.pending.clear()
        self._tokens.clear()

    def bank(self, key: Key, like: Tensor) -> Bank:
        """Return the bank of (conditioning, layer, step), empty at first.

        Args:
            key: the key of the bank.
            like: [HW, C] features of the current frame; a loaded bank gets their dtype and device.

        Raises:
            FeatureSizeError: `like` has another HW than the frames before.
        """
        bank = self._banks.get(key, Bank())
        before = self._tokens.setdefault(key, len(like))
        # A loaded bank does not store the number of frames that its tokens come from.
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
        """Return the config and all banks, as `conditioning/layer/step/part`; not copied."""
        state = {"settings": self._numbers()}
        for (conditioning, layer, step), bank in self._banks.items():
            name = f"{conditioning}/{layer}/{step}"
            state |= {f"{name}/{part}": tensor for part, tensor in bank.parts().items()}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the saved stream has another config.
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
        """Bytes that all banks hold now."""
        return sum(bank.nbytes for bank in (*self._banks.values(), *self.pending.values()))

    def _numbers(self) -> Tensor:
        kind = list(BankKind).index(self.config.kind)
        config = self.config
        levels = [level in used for used in (config.fuse, config.extend) for level in ALL_LEVELS]
        return torch.tensor([kind, config.frames, config.interval, *map(int, levels)])


@dataclass(frozen=True)
class BankRow:
    """One row of a call, and the bank that it sees.

    Attributes:
        row: index in the batch.
        tokens: HW of the frame.
        key: the key of the bank.
        bank: the bank before the frame.
        update: the update of the bank with the frame; None if there is none.
    """

    row: int
    tokens: int
    key: Key
    bank: Bank
    update: Update | None


@dataclass(frozen=True)
class BankCall:
    """The banks that the self-attentions read and write during one model call.

    Attributes:
        memory: the stream's banks.
        groups: (denoising step, frames) of each group, in the order of the rows.
    """

    memory: BankMemory
    groups: tuple[tuple[int, range], ...]
    _to_fuse: dict[str, list[BankRow]] = field(default_factory=dict)

    def select(self, index: int) -> BankCall:
        """Return the call with only the group at its `index`-th step."""
        return BankCall(self.memory, (self.groups[index],))

    @property
    def row_count(self) -> int:
        """The number of rows of one conditioning, N."""
        return sum(len(frames) for _, frames in self.groups)

    def update(
        self, layer: str, passes: Sequence[Pass], keys: Tensor, values: Tensor, fuses: bool
    ) -> list[BankRow]:
        """Update the banks, and return for each row the bank before the update.

        Args:
            layer: name of the attention.
            passes: the B passes, in batch order.
            keys, values: [B*N, HW, C].
            fuses: whether `fuse` follows with the same rows.
        """
        rows: list[BankRow] = []
        for number, place in enumerate(passes):
            start, name = number * self.row_count, self.memory.pass_name(place)
            for step, frames in self.groups:
                key, stop = (name, layer, step), start + len(frames)
                rows += self._update_group(key, frames, range(start, stop), keys, values)
                start = stop
        if fuses:
            self._to_fuse[layer] = rows
        return rows

    def _update_group(
        self, key: Key, frames: range, rows: range, keys: Tensor, values: Tensor
    ) -> Iterator[BankRow]:
        """Update the bank with the frames of a group, one after another like single frames."""
        bank = self.memory.bank(key, keys[rows[0]])
        for frame, row in zip(frames, rows, strict=True):
            update = self._update_of(key, frame, bank, keys[row])
            yield BankRow(row, len(keys[row]), key, bank, update)
            if update is not None:
                new_keys = update(bank.keys, keys[row])
                new_values = update(bank.values, values[row])
                # `fuse` updates the features, which are the attention's output.
                bank = Bank(new_keys, new_values, bank.features)
                self.memory.pending[key] = bank

    def _update_of(self, key: Key, frame: int, bank: Bank, keys: Tensor) -> Update | None:
        memory, (_, layer, step) = self.memory, key
        if frame % memory.config.interval:
            return None
        return plan_update(
            memory.config,
            bank.keys,
            keys,
            lambda count: memory.permutation(frame, step, layer, count),
        )

    def fuse(self, layer: str, features: Tensor) -> Tensor:
        """Fuse an attention's output with the banks, row by row, and update their features.

        Args:
            layer: name of the attention, whose `update` came before.
            features: [B*N, HW, C] output of the attention.

        Returns:
            [B*N, HW, C].

        Raises:
            FeatureSizeError: the attention's output has another HW than its input.
        """
        config, pending, out = self.memory.config, self.memory.pending, features.clone()
        # The banks' features after frames of this call, for the next frames of their groups.
        updated: dict[Key, Tensor] = {}
        for row in self._to_fuse.pop(layer, []):
            own, key = features[row.row], row.key
            if len(own) != row.tokens:
                raise FeatureSizeError(
                    f"Another node merged {row.tokens} tokens of {layer} into {len(own)} "
                    "(TomePatchModel does that). Put it before 'Apply Feature Bank'."
                )
            bank = updated.get(key, row.bank.features)
            if bank is not None:
                strength, threshold = config.fusion_strength, config.similarity_threshold
                out[row.row] = fuse(own, bank, strength, threshold)
            if row.update is not None:
                updated[key] = row.update(bank, own)
                pending[key] = replace(pending[key], features=updated[key])
        return out


def by_bank_size(rows: Sequence[BankRow]) -> dict[int, list[BankRow]]:
    """Group rows by the size of their banks: rows of one size can share an attention call."""
    sizes: dict[int, list[BankRow]] = {}
    for row in rows:
        sizes.setdefault(row.bank.tokens, []).append(row)
    return sizes
