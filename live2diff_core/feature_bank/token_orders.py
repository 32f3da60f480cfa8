"""The random orders of tokens that merging needs, drawn ahead and uploaded once per call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..stream.made_ahead import MadeAhead
from ..stream.transfer import upload
from .bank import BankedLayer

# Maps (frame, step, layer, count) to a random permutation of `count` tokens, on the CPU.
PermutationFn = Callable[[int, int, str, int], Tensor]


class Order(NamedTuple):
    """The order of `tokens` tokens of a frame at a denoising step, for an attention's index."""

    frame: int
    step: int
    layer: int
    tokens: int


class TokenOrders:
    """Draws orders for whole calls; those of the next calls are drawn on a thread.

    Args:
        permutation: draws a permutation of tokens.
        layers: the attentions.
    """

    def __init__(self, permutation: PermutationFn, layers: Sequence[BankedLayer]) -> None:
        """Start without a thread."""
        self.permutation, self._layers = permutation, tuple(layers)
        self._ahead: MadeAhead[tuple[Order, ...]] = MadeAhead(self._draw_all)

    def take(self, orders: tuple[Order, ...], device: torch.device) -> CallOrders:
        """Upload the orders of a call, if there are any, as one tensor."""
        if not orders:
            return CallOrders(self, {}, None, device)
        begins, total = {}, 0
        for order in orders:
            begins[order] = total
            total += order.tokens
        return CallOrders(self, begins, self._ahead.take(orders, device), device)

    def expect(self, calls: Sequence[tuple[Order, ...]], device: torch.device) -> None:
        """Begin to draw the orders of the next calls."""
        self._ahead.expect(calls, device)

    def draw(self, order: Order) -> Tensor:
        """Draw one order."""
        frame, step, layer, tokens = order
        return self.permutation(frame, step, self._layers[layer].name, tokens)

    def _draw_all(self, orders: tuple[Order, ...]) -> Tensor:
        return torch.cat([self.draw(order) for order in orders])


@dataclass(frozen=True)
class CallOrders:
    """The orders of one call.

    Attributes:
        source: draws what is missing.
        begins: where each order begins in `packed`.
        packed: all orders, on `device`; None if there are none.
        device: the model's.
    """

    source: TokenOrders
    begins: dict[Order, int]
    packed: Tensor | None
    device: torch.device

    def of(self, order: Order) -> Tensor:
        """Return an order, [tokens] int64."""
        begin = self.begins.get(order)
        if begin is None or self.packed is None:
            # A size or a pass that this call is the first to have.
            return upload(self.source.draw(order), self.device)
        return self.packed[begin : begin + order.tokens]
