"""StreamV2V's feature bank: self-attention that also sees past frames, and fusion with them.

Dataclasses and pure functions of tensors, for one frame of one conditioning at a time. M is the
number of tokens in a bank: HW, or HW for each frame of a queue.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize


class BankKind(str, Enum):
    """How a frame enters the bank (StreamV2V, section 4.3)."""

    MERGE = "merge"
    QUEUE = "queue"


ALL_LEVELS = ("down 1", "down 2", "down 3", "middle", "up 2", "up 3", "up 4")


@dataclass(frozen=True)
class BankConfig:
    """The features that a bank keeps, the interval of its updates, and the levels that use it.

    Attributes:
        kind: `merge` keeps the size of one frame (dynamic merging), `queue` the last frames.
        queue_frames: frames in the queue, at least 1.
        interval: frames from one update to the next, at least 1; the first frame always updates.
        fusion_strength: share of the bank's token in a fused feature (alpha), 0 to 1.
        similarity_threshold: least cosine similarity of tokens that are fused, -1 to 1.
        fuse: levels of the UNet whose features are fused. The default follows the authors' code;
            the paper describes the transformer blocks' output.
        extend: levels of the UNet whose self-attention sees the bank.

    Raises:
        ValueError: a number is out of range, or there is no such level.
    """

    kind: BankKind = BankKind.MERGE
    queue_frames: int = 2
    interval: int = 4
    fusion_strength: float = 0.8
    similarity_threshold: float = 0.98
    fuse: tuple[str, ...] = ("middle", "up 2")
    extend: tuple[str, ...] = ALL_LEVELS

    def __post_init__(self) -> None:
        """Check numbers and levels."""
        object.__setattr__(self, "kind", BankKind(self.kind))
        for name, least in (("queue_frames", 1), ("interval", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if not 0 <= self.fusion_strength <= 1:
            raise ValueError(f"fusion_strength is {self.fusion_strength}; it must be 0 to 1.")
        if not -1 <= self.similarity_threshold <= 1:
            raise ValueError(
                f"similarity_threshold is {self.similarity_threshold}; it must be -1 to 1."
            )
        for level in (*self.fuse, *self.extend):
            if level not in ALL_LEVELS:
                raise ValueError(
                    f"there is no level {level!r} with self-attention in SD1.5; there are "
                    f"{', '.join(ALL_LEVELS)}."
                )

    def __str__(self) -> str:
        """Name the config in saved streams; this text must not change."""
        return (
            f"BankConfig(kind=<BankKind.{self.kind.name}: {self.kind.value!r}>, "
            f"queue_frames={self.queue_frames}, interval={self.interval}, "
            f"fusion_strength={self.fusion_strength}, "
            f"similarity_threshold={self.similarity_threshold}, "
            f"fuse={self.fuse}, extend={self.extend})"
        )

    def normalised(self) -> BankConfig:
        """Return the canonical form: levels in order, and the default size of an unused queue."""
        default = BankConfig.queue_frames
        return replace(
            self,
            queue_frames=self.queue_frames if self.kind is BankKind.QUEUE else default,
            fuse=tuple(level for level in ALL_LEVELS if level in self.fuse),
            extend=tuple(level for level in ALL_LEVELS if level in self.extend),
        )

    @property
    def frames(self) -> int:
        """The size of a full bank in frames, M / HW."""
        return self.queue_frames if self.kind is BankKind.QUEUE else 1


@dataclass(frozen=True)
class Bank:
    """Past features of one self-attention, for one conditioning at one denoising step.

    Attributes:
        keys, values: [M, C]; None while the bank is empty.
        features: [M, C] outputs of the attention before fusion; None where nothing is fused.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    features: Tensor | None = None

    @property
    def tokens(self) -> int:
        """The number of tokens, M; 0 while the bank is empty."""
        return 0 if self.keys is None else len(self.keys)

    def parts(self) -> dict[str, Tensor]:
        """Return the tensors that are not None, by name."""
        named = {"keys": self.keys, "values": self.values, "features": self.features}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def to(self, like: Tensor) -> Bank:
        """Return the bank with dtype and device of `like`; itself if nothing changes."""
        if self.keys is None or (self.keys.device == like.device and self.keys.dtype == like.dtype):
            return self
        return Bank(**{name: tensor.to(like) for name, tensor in self.parts().items()})

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.parts().values())


# Maps (the bank's keys, values or features [M, C] or None, the frame's [HW, C]) to the new bank's.
Update = Callable[[Tensor | None, Tensor], Tensor]


def plan_update(
    config: BankConfig, bank_keys: Tensor | None, keys: Tensor, permutation: Callable[[int], Tensor]
) -> Update:
    """Determine from the keys how a frame enters the bank; values and features enter alike.

    Args:
        config: kind and size of the bank.
        bank_keys: [M, C] keys of the bank; None while it is empty.
        keys: [HW, C] keys of the frame.
        permutation: called with a count of tokens; returns a random permutation of them.
    """
    if bank_keys is None:
        return _first
    if config.kind is BankKind.QUEUE:
        return partial(_enqueue, (config.queue_frames - 1) * len(keys))
    metric = normalize(torch.cat([bank_keys, keys]), dim=-1)
    source, target = permutation(2 * len(keys)).to(keys.device).chunk(2)
    nearest = (metric[source] @ metric[target].T).argmax(-1)
    return partial(_merge, *_bags(source, target, nearest))


def _first(bank: Tensor | None, frame: Tensor) -> Tensor:
    # Clone the frame, because it is a view that would keep the whole batch alive.
    return frame.clone()


def _enqueue(kept: int, bank: Tensor | None, frame: Tensor) -> Tensor:
    """Append a frame to the last `kept` tokens of a queue."""
    assert bank is not None
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


def _merge(members: Tensor, begins: Tensor, bank: Tensor | None, frame: Tensor) -> Tensor:
    """Average half of all tokens into the most similar ones of the other half (dynamic merging).

    Args:
        members, begins: from `_bags`.
        bank, frame: [HW, C].

    Returns:
        [HW, C] the target tokens.
    """
    assert bank is not None
    # In half precision, sums of many tokens would lose digits.
    both = torch.cat([bank, frame]).float()
    # Each list is summed in its order. Scattered sums are in no order on CUDA, so that a resumed
    # stream would differ from one that was not interrupted.
    return embedding_bag(members, both, begins, mode="mean").to(frame.dtype)


def fuse(features: Tensor, bank: Tensor, strength: float, threshold: float) -> Tensor:
    """Blend every token with the most similar token of the bank, if it is similar enough.

    Args:
        features: [HW, C] features of the frame.
        bank: [M, C] features of the bank.
        strength: share of the bank's token (alpha), 0 to 1.
        threshold: least cosine similarity, -1 to 1.

    Returns:
        [HW, C] (1 - alpha) * own + alpha * nearest; `own` where no token reaches the threshold.
    """
    directions, fused = normalize(bank, dim=-1).T, []
    # A bank of several frames is searched in parts, so that no matrix exceeds HW x HW.
    for part in features.split(max(1, len(features) ** 2 // len(bank))):
        similarity, index = (normalize(part, dim=-1) @ directions).max(-1)
        near = (similarity >= threshold)[:, None]
        fused.append(torch.where(near, torch.lerp(part, bank[index], strength), part))
    return torch.cat(fused)


def extend(own: Tensor, banks: Sequence[Tensor | None]) -> Tensor:
    """Append each row's bank to its tokens: [N, HW, C] and N times [M, C] to [N, HW + M, C].

    All banks have the same size; if they are empty (None), `own` is returned unchanged.
    """
    filled = [bank for bank in banks if bank is not None]
    if not filled:
        return own
    rows, tokens, channels = own.shape
    out = own.new_empty(rows, tokens + len(filled[0]), channels)
    out[:, :tokens] = own
    for row, bank in enumerate(filled):
        out[row, tokens:] = bank
    return out
