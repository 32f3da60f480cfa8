"""The sample's depth network: inverse depth from one picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu, silu

WIDTHS = (16, 32, 64, 96, 128)


class SampleDepth(nn.Module):
    """A convolutional network that halves the size five times and doubles it three times."""

    def __init__(self) -> None:
        """Create the layers."""
        super().__init__()
        widths = (3, *WIDTHS)
        pairs = list(zip(widths, widths[1:], strict=False))
        self.down = nn.ModuleList(nn.Conv2d(*pair, 3, stride=2, padding=1) for pair in pairs)
        self.same = nn.ModuleList(_Block(width) for width in WIDTHS)
        self.up = nn.ModuleList(nn.Conv2d(outer, inner, 1) for inner, outer in pairs[:1:-1])
        self.joined = nn.ModuleList(_Block(inner) for inner, _ in pairs[:1:-1])
        self.out = nn.Conv2d(WIDTHS[1], 1, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """Estimate inverse depth.

        Args:
            pictures: [F, 3, S, S] in -1..1, S a multiple of 64.

        Returns:
            [F, S, S], at least 0, larger is nearer, without a unit.
        """
        feature, skips = avg_pool2d(pictures, 2), []
        for down, same in zip(self.down, self.same, strict=True):
            feature = same(silu(down(feature)))
            skips.append(feature)
        # A share of the whole picture at every place: what is near depends on what else is there.
        feature = feature + feature.mean((2, 3), keepdim=True)
        for up, joined, skip in zip(self.up, self.joined, skips[-2:0:-1], strict=True):
            feature = joined(interpolate(up(feature), scale_factor=2) + skip)
        size = pictures.shape[-2:]
        return relu(interpolate(self.out(feature), size, mode="bilinear"))[:, 0]


class _Block(nn.Module):
    """A residual block of two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, feature: Tensor) -> Tensor:
        inner = self.second(silu(self.first(silu(self.norm(feature)))))
        return feature + inner


def relative(depth: Tensor) -> Tensor:
    """Scale inverse depth [F, H, W] to 0..1, frame by frame."""
    low, high = torch.aminmax(depth.flatten(1), dim=1)
    low, high = low[:, None, None], high[:, None, None]
    return (depth - low) / (high - low).clamp(min=1e-6)
