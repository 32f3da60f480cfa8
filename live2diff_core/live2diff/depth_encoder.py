"""Live2Diff's mapping network E^cond: from depth latents to features for the UNet's first layer."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN_CHANNELS = (16, 16, 32, 32, 96, 96, 256)


class DepthEncoder(nn.Module):
    """Eight 3x3 convolutions (Live2Diff, section 3.2), named as in the published file.

    Args:
        out_channels: C0, width of the UNet's first layer (320 in SD1.5).
        operations: the host's layer classes.
    """

    def __init__(
        self, out_channels: int, dtype: torch.dtype, device: torch.device, operations: Any
    ) -> None:
        """Create the layers without initialising their weights."""
        super().__init__()

        def conv(inner: int, outer: int) -> nn.Module:
            return operations.Conv2d(inner, outer, 3, padding=1, dtype=dtype, device=device)

        self.conv_in = conv(4, HIDDEN_CHANNELS[0])
        self.blocks = nn.ModuleList(conv(*widths) for widths in pairwise(HIDDEN_CHANNELS))
        self.conv_out = conv(HIDDEN_CHANNELS[-1], out_channels)

    def forward(self, depth: Tensor) -> Tensor:
        """Map depth latents [F, 4, h, w], scaled like frame latents, to features [F, C0, h, w]."""
        feature = functional.silu(self.conv_in(depth))
        for block in self.blocks:
            feature = functional.silu(block(feature))
        return self.conv_out(feature)
