"""StreamV2V's memory of a stream: a feature bank per self-attention, conditioning and step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..stream.call_plan import OpenedShape, PackedIntegers
from ..stream.state import integers
from .bank import ALL_LEVELS, BankConfig, BankedLayer, BankKind
from .call import BankCall
from .stream_banks import StreamBanks
from .token_orders import CallOrders, Order, PermutationFn, TokenOrders

_SETTINGS = "settings"
# The number of calls for which orders are drawn ahead.
_AHEAD = 2


class BankMemory:
    """All banks of one stream. Even frames of one group see and update them one after another.

    Args:
        config: kind, interval and strengths.
        permutation: draws random permutations of tokens, for merging.
        layers: the self-attentions with a bank, in the UNet's order.
        steps: T of each kind of conditioning (`positive`, `negative`), by kind.

    Attributes:
        config: see above.
        banks: keys, values and features.
        orders: the permutations.
    """

    def __init__(
        self,
        config: BankConfig,
        permutation: PermutationFn,
        layers: Sequence[BankedLayer],
        steps: Mapping[str, int],
    ) -> None:
        """Start without banks; `open` allocates them."""
        self.config = config
        self.banks = StreamBanks(layers, steps, config.frames)
        self.orders = TokenOrders(permutation, layers)

    def open(self, shape: OpenedShape) -> None:
        """Allocate the banks; what is in them already is kept."""
        self.banks.open(shape)

    def group(self, frame: int) -> range:
        """Return `frame` alone: a bank needs no groups."""
        return range(frame, frame + 1)

    def integers(self, groups: Sequence[range], steps: range) -> list[int]:
        """Return nothing: banks are reached by step alone."""
        return []

    def plan(self, groups: Sequence[range], steps: range, integers: PackedIntegers) -> BankCall:
        """Prepare a model call in which group r of `groups` is at step r of `steps`."""
        rows = tuple(zip(steps, groups, strict=True))
        return BankCall(self.config, self.banks, rows, self._orders(rows, integers.device))

    def commit(self) -> None:
        """Keep the banks that the planned calls updated."""
        self.banks.commit()

    def discard(self) -> None:
        """Drop the banks that the planned calls updated."""
        self.banks.discard()

    def reset(self) -> None:
        """Forget the stream; its banks stay allocated."""
        self.banks.clear()

    def to(self, device: torch.device) -> None:
        """Move all banks to `device`; the next `open` moves them to the model's."""
        self.banks.to(device)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the config and all banks, as `pass/attention/step/part`; not copied."""
        return {_SETTINGS: self._numbers(), **self.banks.state_dict()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: the saved stream has another config, or its state is damaged.
        """
        integers(state, _SETTINGS, len(self._numbers()))
        if not torch.equal(state[_SETTINGS], self._numbers()):
            raise ValueError(
                "the saved stream's feature bank has another type, size, interval or other "
                "levels than this MODEL's."
            )
        self.banks.load_state_dict({k: v for k, v in state.items() if k != _SETTINGS})

    @property
    def nbytes(self) -> int:
        """Bytes that all banks hold now."""
        return self.banks.nbytes

    def _orders(self, rows: Sequence[tuple[int, range]], device: torch.device) -> CallOrders:
        """Upload the orders that a call needs, and begin to draw those of the next calls."""
        found = self.orders.take(self._merged(rows), device)
        if all(len(frames) == 1 for _, frames in rows):
            later = (
                [(step, range(frames.start + n, frames.stop + n)) for step, frames in rows]
                for n in range(1, _AHEAD + 1)
            )
            if calls := [orders for rows in later if (orders := self._merged(rows))]:
                self.orders.expect(calls, device)
        return found

    def _merged(self, rows: Sequence[tuple[int, range]]) -> tuple[Order, ...]:
        """List the orders for all frames of a call that are merged into their banks."""
        interval = self.config.interval
        if self.config.kind is not BankKind.MERGE:
            return ()
        # Frame 0 finds all banks empty.
        merged = [(f, s) for s, frames in rows for f in frames if f and f % interval == 0]
        if not merged:
            return ()
        sizes = self.banks.sizes()
        return tuple(Order(*at, layer, 2 * tokens) for at in merged for layer, tokens in sizes)

    def _numbers(self) -> Tensor:
        kind = list(BankKind).index(self.config.kind)
        config = self.config
        levels = [level in used for used in (config.fuse, config.extend) for level in ALL_LEVELS]
        return torch.tensor([kind, config.frames, config.interval, *map(int, levels)])
