"""The settings of StreamV2V's feature bank, and the attentions that have one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class BankKind(str, Enum):
    """How a frame enters the bank (StreamV2V, section 4.3)."""

    MERGE = "merge"
    QUEUE = "queue"


ALL_LEVELS = ("down 1", "down 2", "down 3", "middle", "up 2", "up 3", "up 4")

# What a bank keeps: keys, values, and where they are fused, outputs before fusion.
PARTS = ("keys", "values", "features")


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
class BankedLayer:
    """A self-attention with a bank, and the size of its features.

    Attributes:
        name: in saved streams, such as `middle.0.0`: part, block, attention.
        level: number of downsamplers before it.
        channels: C.
        fuses: whether its output is fused with the bank.
    """

    name: str
    level: int
    channels: int
    fuses: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of `PARTS` that its bank keeps."""
        return PARTS if self.fuses else PARTS[:2]
