"""The banks of one self-attention: one for each denoising step of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from .bank import BankedLayer
from .update import grown

# A bank's keys, values and features, [M, C] each, by name.
Parts = Mapping[str, Tensor]


class LayerBanks:
    """Past features of one self-attention, for one pass at each of its T denoising steps.

    Args:
        layer: the attention.
        shape: T, HW, and the frames in a full bank.
        dtype, device: of the features.

    Attributes:
        tokens: HW of a frame.
        filled: the number of frames in the bank of each step.
        pending: banks that calls updated since the last `commit`, by step.
        met: whether a frame of this size has come.
    """

    def __init__(
        self,
        layer: BankedLayer,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Allocate empty banks."""
        steps, self.tokens, frames = shape
        size = (steps, frames * self.tokens, layer.channels)
        self._tensors = {
            part: torch.zeros(size, dtype=dtype, device=device) for part in layer.parts
        }
        self.filled = [0] * steps
        self.pending: dict[int, dict[str, Tensor]] = {}
        self.met = False

    def seen(self, part: str, steps: range) -> Tensor:
        """Return the keys, values or features of equally full banks: [R, M, C], as they are now."""
        banks, tokens = self._tensors[part], self.filled[steps.start] * self.tokens
        if (len(steps), tokens) == banks.shape[:2]:
            return banks
        return banks[steps.start : steps.stop, :tokens]

    def commit(self, bad: Mapping[int, Tensor] = MappingProxyType({})) -> None:
        """Write what is pending into the banks.

        Args:
            bad: 0-d bool on the device by step, whether the frame came out as NaN or infinite: the
                bank keeps what it has instead. Steps that are not named are fine.
        """
        with torch.no_grad():
            for step, parts in self.pending.items():
                self.write(step, parts, bad.get(step))
        self.pending = {}

    def write(self, step: int, parts: Parts, bad: Tensor | None = None) -> None:
        """Replace the bank of a step, unless the frame is `bad`; all it holds then is finite."""
        for name, tensor in parts.items():
            bank = self._tensors[name][step, : len(tensor)]
            if bad is None:
                bank.copy_(tensor)
            else:
                before = grown(self._filled(name, step), len(tensor), self.tokens)
                torch.where(bad, before, tensor.to(bank.dtype), out=bank)
            bank.nan_to_num_(0.0, 0.0, 0.0)
        self.filled[step] = len(parts["keys"]) // self.tokens

    def _filled(self, part: str, step: int) -> Tensor:
        return self._tensors[part][step, : self.filled[step] * self.tokens]

    def clear(self) -> None:
        """Empty all banks."""
        self.filled = [0] * len(self.filled)
        self.pending = {}

    @property
    def empty(self) -> bool:
        """Whether nothing was ever written, not even by calls that are still pending."""
        return not any(self.filled) and not self.pending

    def stored(self) -> dict[int, Parts]:
        """Return the banks that are not empty by step, as views of what is filled."""
        return {
            step: {part: self.seen(part, range(step, step + 1))[0] for part in self._tensors}
            for step, frames in enumerate(self.filled)
            if frames
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all banks, also those that are pending."""
        pending = [tensor for parts in self.pending.values() for tensor in parts.values()]
        return sum(tensor.nbytes for tensor in (*self._tensors.values(), *pending))
