"""Keys and values of past frames, for one attention and one conditioning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class KVCache:
    """Multi-timestep KV-cache (Live2Diff, section 3.4): step i of a frame sees only step i.

    Keys and values are stored without positions, which change as frames move through the window.

    Attributes:
        keys, values: [T, heads, HW, L, d]; slots not yet written are hidden.
        written: whether any frame was written since the stream began.
    """

    keys: Tensor
    values: Tensor
    written: bool = False

    @classmethod
    def allocate(cls, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> KVCache:
        """Allocate an empty cache [T, heads, HW, L, d]."""
        keys, values = (torch.zeros(shape, dtype=dtype, device=device) for _ in range(2))
        return cls(keys, values)

    def update(
        self, keys: Tensor, values: Tensor, steps: range, slots: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Write the current frames' keys and values, and return all slots of their steps.

        What is not finite becomes 0, in `keys` and `values`, too, because a slot with NaN could not
        be hidden: zero times NaN is NaN. The caller notices such a frame, and has its slots hidden.

        Where gradients are wanted, the cache is left as it is, and copies with the frames in them
        are returned.

        Args:
            keys, values: [R, heads, HW, Q, d] of the current frames.
            steps: R consecutive denoising steps, one per group.
            slots: [R, 1, 1, Q, 1] int64, the slot of each frame.

        Returns:
            Keys and values, [R, heads, HW, L, d].
        """
        places = slots.expand_as(keys)
        cached = self.keys[steps.start : steps.stop], self.values[steps.start : steps.stop]
        if torch.is_grad_enabled() and (keys.requires_grad or values.requires_grad):
            return cached[0].scatter(3, places, keys), cached[1].scatter(3, places, values)
        self.written = True
        for new in (keys, values):
            new.nan_to_num_(0.0, 0.0, 0.0)
        return cached[0].scatter_(3, places, keys), cached[1].scatter_(3, places, values)

    def clear(self) -> None:
        """Forget all frames."""
        self.written = False
        self.keys.zero_()
        self.values.zero_()

    def to(self, device: torch.device, dtype: torch.dtype) -> KVCache:
        """Return the cache on another device and in another dtype; itself if nothing changes."""
        if self.keys.device == device and self.keys.dtype == dtype:
            return self
        return self.copy(device, dtype)

    def copy(self, device: torch.device, dtype: torch.dtype) -> KVCache:
        """Return a copy whose tensors are contiguous, whatever those of the cache are."""
        copied = KVCache.allocate(tuple(self.keys.shape), dtype, device)
        copied.keys.copy_(self.keys)
        copied.values.copy_(self.values)
        copied.written = self.written
        return copied

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values."""
        return self.keys.nbytes + self.values.nbytes
