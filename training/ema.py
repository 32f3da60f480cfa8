"""A moving mean of weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class MovingMean:
    """The exponential moving mean of parameters, in float32 beside them.

    Args:
        parameters: by name; the mean starts at their values.
        decay: weight of the past. Early on it is less, so that the start is soon forgotten.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        """Start at the parameters' values."""
        self._decay = decay
        self.values = {name: value.detach().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, parameters: Mapping[str, Tensor], step: int) -> None:
        """Take in the parameters after `step` steps of the optimizer, 1 or more."""
        decay = min(self._decay, (1 + step) / (10 + step))
        means = list(self.values.values())
        torch._foreach_lerp_(means, [parameters[name] for name in self.values], 1.0 - decay)
