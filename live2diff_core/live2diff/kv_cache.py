"""Keys and values of past frames, for one attention and one conditioning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .attention import PositionTables


@dataclass
class KVCache:
    """Multi-timestep KV-cache (Live2Diff, section 3.4): a frame's step i only ever meets step i.

    Keys and values are stored without positions, which change as frames move up the window.

    Attributes:
        keys, values: [T, HW, heads, L, d]; slots not yet written are zero and never seen.
        positions: the attention's projected position tables.
    """

    keys: Tensor
    values: Tensor
    positions: PositionTables

    @classmethod
    def allocate(
        cls, shape: tuple[int, int, int, int, int], positions: PositionTables, like: Tensor
    ) -> KVCache:
        """Make an empty cache of `shape` = (T, HW, heads, L, d), typed and placed as `like`."""
        return cls(
            torch.zeros(shape, dtype=like.dtype, device=like.device),
            torch.zeros(shape, dtype=like.dtype, device=like.device),
            positions,
        )

    def update(
        self, keys: Tensor, values: Tensor, steps: range, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Write the current frames' keys and values and return all of their steps' slots.

        Args:
            keys, values: [R, HW, heads, Q, d], the Q frames of each of R consecutive steps.
            steps: the R consecutive denoising steps.
            slots: [R, Q] int64, where each frame goes.

        Returns:
            Views of keys and values, [R, HW, heads, L, d].
        """
        all_keys = self.keys[steps.start : steps.stop]
        all_values = self.values[steps.start : steps.stop]
        rows = torch.arange(len(steps), device=slots.device).unsqueeze(1)  # [R, 1]
        # Indexing dimensions 0 and 3 puts them first: [R, Q, HW, heads, d].
        all_keys[rows, :, :, slots] = keys.permute(0, 3, 1, 2, 4)
        all_values[rows, :, :, slots] = values.permute(0, 3, 1, 2, 4)
        return all_keys, all_values

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.keys.nbytes + self.values.nbytes
