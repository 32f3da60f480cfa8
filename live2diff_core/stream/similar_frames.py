"""Skips frames that are similar to the last translated one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .noise import frame_chance


@dataclass(frozen=True)
class SkipRule:
    """Which frames are skipped.

    Attributes:
        threshold: least cosine similarity of skipped frames, 0 to 1; above it the probability of
            a skip grows linearly to 1 at similarity 1. A threshold of 1 skips no frame.
        most_skipped: most frames skipped in a row, at least 0.

    Raises:
        ValueError: a number is out of range.
    """

    threshold: float = 0.98
    most_skipped: int = 10

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}; it must be 0 to 1.")
        if self.most_skipped < 0:
            raise ValueError(f"most_skipped is {self.most_skipped}; it must be at least 0.")

    def __str__(self) -> str:
        """Name the rule in saved streams; this text must not change."""
        return f"threshold={self.threshold}, most_skipped={self.most_skipped}"


class SimilarFrameFilter:
    """StreamDiffusion's stochastic similarity filter (section 3.5), as a function of the frame.

    Random numbers depend on (seed, frame), so that the same frames are skipped however the stream
    is divided. Each frame is compared with the last translated frame, not with the previous one,
    so that slow changes add up.
    """

    def __init__(self, seed: int, rule: SkipRule | None = None) -> None:
        """Start a stream.

        Args:
            seed: the stream's seed.
            rule: which frames are skipped; None skips no frame.
        """
        self.rule, self._seed = rule, seed
        self.reset()

    def follow(self, rule: SkipRule | None) -> None:
        """Decide by another rule from now on, or the same."""
        self.rule = rule
        if rule is None:
            self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._last: Tensor | None = None
        self._skipped = 0

    def skips(self, frame: int, picture: Tensor) -> bool:
        """Decide whether to skip `frame`, and count it if so; else call `translated` next.

        Args:
            frame: index in the stream.
            picture: uint8 pixels or a latent, of the same shape for all frames.
        """
        rule = self.rule
        if rule is None or self._last is None or self._skipped >= rule.most_skipped:
            return False
        if rule.threshold == 1:
            return False
        chance = 1 - (1 - _similarity(self._last, picture)) / (1 - rule.threshold)
        skipped = frame_chance(self._seed, frame) < chance
        self._skipped += skipped
        return skipped

    def translated(self, picture: Tensor) -> None:
        """Store the picture of a translated frame, with which the next frames are compared."""
        self._last, self._skipped = picture if self.rule else None, 0

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state as tensors by name; not copied."""
        last = {} if self._last is None else {"last": self._last}
        return {"skipped": torch.tensor(self._skipped), **last}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._skipped = int(state["skipped"])
        self._last = state.get("last")


def _similarity(one: Tensor, other: Tensor) -> float:
    """Return the cosine similarity of two tensors of the same shape; 1 if both are all 0.

    torch's own is off by 2e-4 on large pictures, which is too much near a threshold of 1; `sum`
    adds pairwise.
    """
    a, b = _centred(one).to(other.device), _centred(other)
    mixed, first, second = ((x * y).sum().item() for x, y in ((a, b), (a, a), (b, b)))
    if not first and not second:
        return 1.0
    return mixed / max((first * second) ** 0.5, 1e-30)


def _centred(picture: Tensor) -> Tensor:
    """Scale pixels to -1..1, as for the VAE: in 0..255 all pictures point in similar directions."""
    if picture.dtype == torch.uint8:
        return picture.float() / 127.5 - 1.0
    return picture.float()
