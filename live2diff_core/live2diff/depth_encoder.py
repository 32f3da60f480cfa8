"""Live2Diff's mapping network E^cond: a depth latent to a feature the UNet's first layer adds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN_CHANNELS = (16, 16, 32, 32, 96, 96, 256)


class DepthEncoder(nn.Module):
    """Eight 3x3 convolutions (Live2Diff, section 3.2). Module names are the published file's.

    Args:
        out_channels: width of the UNet's first layer (320 in SD1.5).
        operations: the host's layer classes.
    """

    def __init__(
        self, out_channels: int, dtype: torch.dtype, device: torch.device, operations: Any
    ) -> None:
        """Build without initialising weights."""
        super().__init__()

        def conv(inner: int, outer: int) -> nn.Module:
            return operations.Conv2d(inner, outer, 3, padding=1, dtype=dtype, device=device)

        first, *rest = HIDDEN_CHANNELS
        self.conv_in = conv(4, first)
        self.blocks = nn.ModuleList(
            conv(inner, outer) for inner, outer in zip(HIDDEN_CHANNELS, rest, strict=False)
        )
        self.conv_out = conv(HIDDEN_CHANNELS[-1], out_channels)

    def forward(self, depth: Tensor) -> Tensor:
        """Map depth latents [F, 4, h, w], scaled like frame latents, to [F, C0, h, w]."""
        feature = functional.silu(self.conv_in(depth))
        for block in self.blocks:
            feature = functional.silu(block(feature))
        return self.conv_out(feature)
