"""How a frame enters a bank: as it is, at the end of a queue, or merged (StreamV2V, section 4.3).

Pure functions of one frame of one conditioning. M is the number of tokens in a bank: HW, or HW for
each frame of a queue; 0 while it is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from ..stream.faults import is_finite
from .bank import BankConfig, BankKind

# Maps (the bank's keys, values or features [M, C], the frame's [HW, C]) to the new bank's.
Update = Callable[[Tensor, Tensor], Tensor]


def plan_update(
    config: BankConfig, bank_keys: Tensor, keys: Tensor, permutation: Callable[[int], Tensor]
) -> Update:
    """Determine from the keys how a frame enters the bank; values and features enter alike.

    Args:
        config: kind and size of the bank.
        bank_keys: [M, C] keys of the bank.
        keys: [HW, C] keys of the frame.
        permutation: called with a count of tokens where they are merged; returns a random
            permutation of them, on the device of the keys.
    """
    if not len(bank_keys):
        return _first
    if config.kind is BankKind.QUEUE:
        return partial(_enqueue, (config.queue_frames - 1) * len(keys))
    metric = normalize(torch.cat([bank_keys, keys]), dim=-1)
    source, target = permutation(2 * len(keys)).chunk(2)
    similarity = metric.index_select(0, source) @ metric.index_select(0, target).T
    nearest = similarity.argmax(-1)
    return partial(_merge, *_bags(source, target, nearest))


def unless(bad: Tensor, update: Update) -> Update:
    """Return `update` for a frame that leaves the bank as it is where it is `bad`, 0-d bool.

    The frame is bad, too, where what enters is not finite.
    """

    def updated(bank: Tensor, frame: Tensor) -> Tensor:
        new = update(bank, frame)
        return torch.where(bad | ~is_finite(frame), grown(bank, len(new), len(frame)), new)

    return updated


def grown(bank: Tensor, length: int, tokens: int) -> Tensor:
    """Return a bank at the size that it would have with another frame, but without that frame.

    Where it is to grow, its last frame is there twice. An empty bank gets zeros, which the frames
    of the next updates replace.

    Args:
        bank: [M, C].
        length: M after the update.
        tokens: HW of a frame.
    """
    if len(bank) == length:
        return bank
    if not len(bank):
        return bank.new_zeros(length, bank.shape[1])
    return torch.cat([bank, bank[-tokens:]])


def _first(bank: Tensor, frame: Tensor) -> Tensor:
    # Clone the frame, because it is a view that would keep the whole batch alive.
    return frame.clone()


def _enqueue(kept: int, bank: Tensor, frame: Tensor) -> Tensor:
    """Append a frame to the last `kept` tokens of a queue."""
    # Cut before concatenating: a view of the longer queue would keep all of it alive.
    return torch.cat([bank[max(0, len(bank) - kept) :], frame])


def _bags(source: Tensor, target: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """List for each target token the tokens to average: itself, then its sources in their order.

    Args:
        source, target: [HW] each, halves of the bank's and the frame's tokens, in that order.
        nearest: [HW] for each source token the index of its target in `target`.

    Returns:
        The tokens of all lists, [2 HW], and where each list begins, [HW].
    """
    places = torch.arange(len(target), device=target.device)
    lists, order = torch.cat([places, nearest]).sort(stable=True)
    return torch.cat([target, source]).index_select(0, order), torch.searchsorted(lists, places)


def _merge(members: Tensor, begins: Tensor, bank: Tensor, frame: Tensor) -> Tensor:
    """Average half of all tokens into the most similar ones of the other half (dynamic merging).

    Args:
        members, begins: from `_bags`.
        bank, frame: [HW, C].

    Returns:
        [HW, C] the target tokens.
    """
    # In half precision, sums of many tokens would lose digits.
    both = torch.cat([bank, frame]).float()
    # Each list is summed in its order. Scattered sums are in no order on CUDA, so that a resumed
    # stream would differ from one that was not interrupted.
    return embedding_bag(members, both, begins, mode="mean").to(frame.dtype)
