"""StreamV2V's memory of a stream: a feature bank per self-attention, conditioning and step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from .bank_step import BankStep, Key
from .feature_bank import ALL_LEVELS, Bank, BankConfig, BankKind
from .step_plan import FeatureSizeError

# (frame, step, layer, count) to a random order of so many tokens.
OrderFn = Callable[[int, int, str, int], Tensor]


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
