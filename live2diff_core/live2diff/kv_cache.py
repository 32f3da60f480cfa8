"""Keys and values of past frames, for one attention and one conditioning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from .attention import PositionTables


@dataclass
class KVCache:
    """Multi-timestep KV-cache (Live2Diff, section 3.4): step i of a frame sees only step i.

    Keys and values are stored without positions, which change as frames move through the window.

    Attributes:
        keys, values: [T, HW, heads, L, d]; slots not yet written are zero and hidden.
        positions: the attention's projected position tables.
    """

    keys: Tensor
    values: Tensor
    positions: PositionTables

    @classmethod
    def allocate(
        cls, shape: tuple[int, int, int, int, int], positions: PositionTables, like: Tensor
    ) -> KVCache:
        """Allocate an empty cache [T, HW, heads, L, d] with dtype and device of `like`."""
        return cls(
            torch.zeros(shape, dtype=like.dtype, device=like.device),
            torch.zeros(shape, dtype=like.dtype, device=like.device),
            positions,
        )

    def update(
        self, keys: Tensor, values: Tensor, steps: range, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Write the current frames' keys and values, and return all slots of their steps.

        Args:
            keys, values: [R, HW, heads, Q, d] of the current frames.
            steps: R consecutive denoising steps, one per group.
            slots: [R, Q] int64, the slot of each frame.

        Returns:
            Views of keys and values, [R, HW, heads, L, d].
        """
        groups = torch.arange(len(steps), device=slots.device)[:, None]
        cached = self.keys[steps.start : steps.stop], self.values[steps.start : steps.stop]
        for cache, current in zip(cached, (keys, values), strict=True):
            # Index tensors on both sides of slices put their dimensions, R and Q, first.
            cache[groups, :, :, slots] = rearrange(current, "r hw heads q d -> r q hw heads d")
        return cached

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes
