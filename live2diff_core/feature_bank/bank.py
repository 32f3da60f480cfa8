"""StreamV2V's feature bank: self-attention that also sees past frames, and fusion with them.

Pure functions and values; tensors of one row (one frame, one conditioning) at a time:
N tokens, C channels, M tokens in the bank (N, or N for each queued frame).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import Tensor
from torch.nn.functional import normalize


class BankKind(str, Enum):
    """How the bank takes in a frame (StreamV2V, section 4.3)."""

    MERGE = "merge"
    QUEUE = "queue"


ALL_LEVELS = ("down 1", "down 2", "down 3", "middle", "up 2", "up 3", "up 4")


@dataclass(frozen=True)
class BankConfig:
    """What is remembered, how often, and where it is used.

    Attributes:
        kind: `merge` keeps the size of one frame (dynamic merging), `queue` the last frames.
        queue_frames: frames in the queue.
        interval: every so many frames one is taken in, the first included.
        fusion_strength: part of the nearest token of the bank in a fused feature, 0 to 1 (alpha).
        similarity_threshold: cosine similarity from which a bank's token counts as near, -1 to 1.
        fuse: levels of the UNet whose features are fused. The default is what the authors' code
            does; the paper speaks of the transformer blocks' output.
        extend: levels of the UNet whose self-attention sees the bank.

    Raises:
        ValueError: a number out of range or a level that there is not.
    """

    kind: BankKind = BankKind.MERGE
    queue_frames: int = 2
    interval: int = 4
    fusion_strength: float = 0.8
    similarity_threshold: float = 0.98
    fuse: tuple[str, ...] = ("middle", "up 2")
    extend: tuple[str, ...] = ALL_LEVELS

    def __post_init__(self) -> None:
        """Reject what no bank can be made of."""
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

    def normalised(self) -> BankConfig:
        """The same bank without what makes no difference: order of levels, an unused queue."""
        default = BankConfig.queue_frames
        return replace(
            self,
            queue_frames=self.queue_frames if self.kind is BankKind.QUEUE else default,
            fuse=tuple(level for level in ALL_LEVELS if level in self.fuse),
            extend=tuple(level for level in ALL_LEVELS if level in self.extend),
        )

    @property
    def frames(self) -> int:
        """Frames' worth of tokens that a full bank holds."""
        return self.queue_frames if self.kind is BankKind.QUEUE else 1


@dataclass(frozen=True)
class Bank:
    """What one self-attention remembers, for one conditioning at one denoising step. A value.

    Attributes:
        keys, values: [M, C]; None while nothing is remembered.
        features: [M, C] outputs of the attention before fusion; None where nothing is fused.
    """

    keys: Tensor | None = None
    values: Tensor | None = None
    features: Tensor | None = None

    @property
    def tokens(self) -> int:
        """M."""
        return 0 if self.keys is None else len(self.keys)

    def parts(self) -> dict[str, Tensor]:
        """The tensors that there are, by name."""
        named = {"keys": self.keys, "values": self.values, "features": self.features}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def to(self, like: Tensor) -> Bank:
        """Move it to the device and type of `like`; itself if it is there."""
        if self.keys is None or (self.keys.device == like.device and self.keys.dtype == like.dtype):
            return self
        return Bank(**{name: tensor.to(like) for name, tensor in self.parts().items()})

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(tensor.nbytes for tensor in self.parts().values())


# Takes what the bank holds of something, [M, C] or None while it is empty, and a frame's [N, C].
Update = Callable[[Tensor | None, Tensor], Tensor]


def plan_update(
    config: BankConfig, bank_keys: Tensor | None, keys: Tensor, permutation: Callable[[int], Tensor]
) -> Update:
    """Decide by the keys how a frame is taken in; keys, values and features follow alike.

    Args:
        config: kind and size.
        bank_keys: [M, C], None while the bank is empty.
        keys: [N, C] of the frame.
        permutation: (count) to a random permutation of so many tokens.
    """
    if bank_keys is None:
        return _first
    if config.kind is BankKind.QUEUE:
        return _Queued(config.queue_frames)
    return _Merged.by_keys(bank_keys, keys, permutation(2 * len(keys)).to(keys.device))


def _first(bank: Tensor | None, frame: Tensor) -> Tensor:
    # A copy: the frame's tensor is a part of a batch's, which must not be kept for it.
    return frame.clone()


@dataclass(frozen=True)
class _Queued:
    """Keeps the last `frames` frames."""

    frames: int

    def __call__(self, bank: Tensor | None, frame: Tensor) -> Tensor:
        assert bank is not None
        # The oldest frame is left out first: a part of a larger tensor would keep all of it.
        oldest = max(0, len(bank) - (self.frames - 1) * len(frame))
        return torch.cat([bank[oldest:], frame])


@dataclass(frozen=True)
class _Merged:
    """Dynamic merging: half of all tokens go into the most similar ones of the other half.

    Attributes:
        source, target: [N] tokens of the bank and the frame, in this order; halves of them all.
        nearest: [N] for each source its target, by place in `target`.
    """

    source: Tensor
    target: Tensor
    nearest: Tensor

    @classmethod
    def by_keys(cls, bank_keys: Tensor, keys: Tensor, permutation: Tensor) -> _Merged:
        metric = normalize(torch.cat([bank_keys, keys]), dim=-1)
        source, target = permutation.chunk(2)
        return cls(source, target, (metric[source] @ metric[target].T).argmax(-1))

    def __call__(self, bank: Tensor | None, frame: Tensor) -> Tensor:
        assert bank is not None
        # Sums of many tokens would lose digits in half precision.
        both = torch.cat([bank, frame]).float()
        places = self.nearest.unsqueeze(1).expand(-1, both.shape[1])
        kept = both[self.target].scatter_reduce(
            0, places, both[self.source], "mean", include_self=True
        )
        return kept.to(frame.dtype)


def fuse(features: Tensor, bank: Tensor, strength: float, threshold: float) -> Tensor:
    """Blend every token with the most similar one of the bank, where that is similar enough.

    Args:
        features: [N, C] the frame's.
        bank: [M, C].
        strength: part of the bank's token (alpha).
        threshold: least cosine similarity.

    Returns:
        [N, C] (1 - alpha) * own + alpha * nearest; own where none is near.
    """
    tokens = normalize(bank, dim=-1).T
    # With several frames in the bank the search goes in parts, to stay within N x N.
    parts = [
        _fuse_part(part, bank, tokens, strength, threshold)
        for part in features.split(max(1, len(features) ** 2 // len(bank)))
    ]
    return torch.cat(parts)


def _fuse_part(
    features: Tensor, bank: Tensor, tokens: Tensor, strength: float, threshold: float
) -> Tensor:
    similarity, index = (normalize(features, dim=-1) @ tokens).max(-1)
    near = (similarity >= threshold).unsqueeze(1)
    return torch.where(near, torch.lerp(features, bank[index], strength), features)


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
