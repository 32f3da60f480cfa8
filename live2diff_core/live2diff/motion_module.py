"""The temporal transformers that are inserted into the UNet, in AnimateDiff's layout.

Modules hold only weights, and their attributes are named after the keys of the published files.
Their layers come from the host (`comfy.ops`), whose memory manager owns the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.ldm.modules.attention as host_attention
import torch
from einops import rearrange
from torch import Tensor, nn

from ..stream.call_plan import Pass
from .attention import PositionTables, windowed_attention
from .depth_encoder import DepthEncoder
from .layout import HEADS, MotionLayout
from .memory import MotionCall


@dataclass(frozen=True)
class Build:
    """The dtype, device and classes of the layers to create."""

    dtype: torch.dtype
    device: torch.device
    operations: Any

    def linear(self, inner: int, outer: int, bias: bool = True) -> nn.Module:
        """Create one of the host's linear layers."""
        return self.operations.Linear(inner, outer, bias=bias, dtype=self.dtype, device=self.device)

    def layer_norm(self, channels: int) -> nn.Module:
        """Create one of the host's layer norms."""
        return self.operations.LayerNorm(channels, dtype=self.dtype, device=self.device)


class PositionEncoder(nn.Module):
    """The sinusoidal position table `pe`, [1, P, C] float32 whatever the weights are stored in."""

    pe: Tensor

    def __init__(self, channels: int, positions: int, build: Build) -> None:
        """Allocate the table; the file fills it."""
        super().__init__()
        # Its values differ by less than the three bits of mantissa that float8 has.
        table = torch.empty(1, positions, channels, dtype=torch.float32, device=build.device)
        self.register_buffer("pe", table)


class TemporalAttention(nn.Module):
    """Self-attention over time, separately for each pixel, with the stream's KV-cache."""

    def __init__(self, channels: int, positions: int, index: int, build: Build) -> None:
        """Create the projections; `index` is the place of this attention among all of a UNet."""
        super().__init__()
        self.index = index
        self.to_q = build.linear(channels, channels, bias=False)
        self.to_k = build.linear(channels, channels, bias=False)
        self.to_v = build.linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([build.linear(channels, channels)])
        self.pos_encoder = PositionEncoder(channels, positions, build)

    def forward(self, x: Tensor, call: MotionCall, passes: Sequence[Pass]) -> Tensor:
        """Attend over time.

        Args:
            x: [B*N, HW, C] normalised features: N = R*Q rows for each of B conditionings.
            call: the caches and windows of this model call.
            passes: the B passes, in batch order.

        Returns:
            [B*N, HW, C].
        """
        sizes = (
            len(passes),
            -1,
            call.view.query_positions.shape[1],
            x.shape[1],
            HEADS,
            x.shape[2] // HEADS,
        )
        projected = [project(x) for project in (self.to_q, self.to_k, self.to_v)]
        # The cache makes keys and values finite. A frame that has needed that must not come out as
        # if nothing had been: its query becomes NaN, and stays what it is in all other frames.
        projected[0] = torch.addcmul(*projected, value=0)
        query, key, value = (
            each.view(sizes).permute(0, 1, 4, 3, 2, 5).unbind() for each in projected
        )
        out = [
            self._attend(place, q, k, v, call)
            for place, q, k, v in zip(passes, query, key, value, strict=True)
        ]
        joined = torch.cat(out) if len(out) > 1 else out[0]
        return self.to_out[0](joined.permute(0, 3, 2, 1, 4).reshape(x.shape))

    def _attend(
        self, place: Pass, query: Tensor, key: Tensor, value: Tensor, call: MotionCall
    ) -> Tensor:
        """Attend in one pass, with its own cache: all [R, heads, HW, Q, d]."""
        cache, view = call.caches.at(place, self.index, key.shape[2]), call.view
        keys, values = cache.update(key, value, view.steps, view.slots)
        placed = call.positions[self.index]
        return windowed_attention(query, keys, values, placed, view.hidden, view.limits)

    def position_tables(self, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """Project the position table for queries, keys and values: three of [P, C]."""
        # The host may keep this buffer on another device.
        pe = self.pos_encoder.pe[0].to(device, dtype)
        # Call the layers rather than use their weights, so that offloaded weights are loaded.
        return [project(pe) for project in (self.to_q, self.to_k, self.to_v)]


class TemporalBlock(nn.Module):
    """Attentions and a feed-forward network, each with a layer norm before it and a residual."""

    def __init__(self, channels: int, layout: MotionLayout, first: int, build: Build) -> None:
        """Create the layers for features of `channels`; `first` is the first attention's index."""
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(channels, layout.positions, first + index, build)
            for index in range(layout.attentions)
        )
        self.norms = nn.ModuleList(build.layer_norm(channels) for _ in range(layout.attentions))
        self.ff = host_attention.FeedForward(
            channels,
            glu=True,
            dtype=build.dtype,
            device=build.device,
            operations=build.operations,
        )
        self.ff_norm = build.layer_norm(channels)

    def forward(self, x: Tensor, call: MotionCall, passes: Sequence[Pass]) -> Tensor:
        """Transform features [B*N, HW, C]; see `TemporalAttention`."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x), call, passes)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """A group norm, then a transformer over time between two projections."""

    def __init__(self, channels: int, layout: MotionLayout, first: int, build: Build) -> None:
        """Create the layers for features of `channels`; `first` is the first attention's index."""
        super().__init__()
        self.norm = build.operations.GroupNorm(
            32, channels, eps=1e-6, dtype=build.dtype, device=build.device
        )
        self.proj_in = build.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, layout, first, build)])
        self.proj_out = build.linear(channels, channels)

    def forward(self, x: Tensor, call: MotionCall, passes: Sequence[Pass]) -> Tensor:
        """Transform features [B*N, C, h, w]."""
        tokens = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c"))
        for block in self.transformer_blocks:
            tokens = block(tokens, call, passes)
        return rearrange(self.proj_out(tokens), "n (h w) c -> n c h w", h=x.shape[2])


class MotionModule(nn.Module):
    """The module inserted into a UNet block: a temporal transformer with a residual."""

    def __init__(self, channels: int, layout: MotionLayout, first: int, build: Build) -> None:
        """Create the module for features of `channels`; `first` is its first attention's index."""
        super().__init__()
        self.channels = channels
        self.temporal_transformer = TemporalTransformer(channels, layout, first, build)

    def forward(self, x: Tensor, call: MotionCall, passes: Sequence[Pass]) -> Tensor:
        """Correlate features [B*N, C, h, w] over time; see `TemporalAttention`."""
        return x + self.temporal_transformer(x, call, passes)


class MotionBlock(nn.Module):
    """The modules of one UNet level."""

    def __init__(
        self, channels: Sequence[int], layout: MotionLayout, first: int, build: Build
    ) -> None:
        """Create a module per entry of `channels`; `first` is the first attention's index."""
        super().__init__()
        self.motion_modules = nn.ModuleList(
            MotionModule(width, layout, first + index * layout.attentions, build)
            for index, width in enumerate(channels)
        )


class MotionModel(nn.Module):
    """All motion modules of a UNet, and the depth encoder where the file has one."""

    def __init__(self, layout: MotionLayout, build: Build) -> None:
        """Create all modules without initialising their weights."""
        super().__init__()
        self.layout = layout
        self.dtype = build.dtype
        self.device = build.device
        first = {size.name: index for index, size in enumerate(layout.attention_sizes())}
        self.down_blocks = nn.ModuleList(
            MotionBlock(level, layout, first[f"down.{n}.0.0"], build)
            for n, level in enumerate(layout.down)
        )
        self.up_blocks = nn.ModuleList(
            MotionBlock(level, layout, first[f"up.{n}.0.0"], build)
            for n, level in enumerate(layout.up)
        )
        if layout.mid is not None:
            self.mid_block = MotionBlock((layout.mid,), layout, first["mid.0.0"], build)
        if layout.depth_channels is not None:
            self.flow_conv_in = DepthEncoder(
                layout.depth_channels, build.dtype, build.device, build.operations
            )

    @classmethod
    def from_tensors(
        cls, layout: MotionLayout, tensors: Mapping[str, Tensor], build: Build
    ) -> MotionModel:
        """Create the model and load a file's tensors; their keys must match exactly."""
        model = cls(layout, build)
        model.load_state_dict(tensors, strict=True)
        return model.eval().requires_grad_(False)

    def position_tables(self, dtype: torch.dtype, device: torch.device) -> PositionTables:
        """Project the position tables of all attentions; the weights must be loaded."""
        attentions = [module for module in self.modules() if isinstance(module, TemporalAttention)]
        attentions.sort(key=lambda attention: attention.index)
        return PositionTables.join([a.position_tables(dtype, device) for a in attentions], HEADS)
