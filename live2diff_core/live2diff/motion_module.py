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

from .attention import PositionTables, windowed_attention
from .depth_encoder import DepthEncoder
from .layout import MotionLayout
from .memory import MotionCall

HEADS = 8


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
    """The sinusoidal position table `pe`, [1, P, C]."""

    pe: Tensor

    def __init__(self, channels: int, positions: int, build: Build) -> None:
        """Allocate the table; the file fills it."""
        super().__init__()
        table = torch.empty(1, positions, channels, dtype=build.dtype, device=build.device)
        self.register_buffer("pe", table)


class TemporalAttention(nn.Module):
    """Self-attention over time, separately for each pixel, with the stream's KV-cache."""

    def __init__(self, channels: int, positions: int, name: str, build: Build) -> None:
        """Create the projections; `name` is the key of this attention's caches."""
        super().__init__()
        self.name = name
        self.to_q = build.linear(channels, channels, bias=False)
        self.to_k = build.linear(channels, channels, bias=False)
        self.to_v = build.linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([build.linear(channels, channels)])
        self.pos_encoder = PositionEncoder(channels, positions, build)

    def forward(self, x: Tensor, call: MotionCall, conditionings: Sequence[str]) -> Tensor:
        """Attend over time.

        Args:
            x: [B*N, HW, C] normalised features: N = R*Q rows for each of B conditionings.
            call: the caches and windows of this model call.
            conditionings: B names, in batch order.

        Returns:
            [B*N, HW, C].
        """
        split = "(b r q) hw (heads d) -> b r hw heads q d"
        sizes = {"b": len(conditionings), "q": call.view.slots.shape[1], "heads": HEADS}
        query, key, value = (
            rearrange(project(x), split, **sizes) for project in (self.to_q, self.to_k, self.to_v)
        )
        out = torch.stack(
            [
                self._attend(name, query[b], key[b], value[b], call)
                for b, name in enumerate(conditionings)
            ]
        )
        return self.to_out[0](rearrange(out, "b r hw heads q d -> (b r q) hw (heads d)"))

    def _attend(
        self, conditioning: str, query: Tensor, key: Tensor, value: Tensor, call: MotionCall
    ) -> Tensor:
        """Attend for one conditioning, with its own cache: all [R, HW, heads, Q, d]."""
        cache = call.memory.cache(conditioning, self.name, key, lambda: self._positions(query))
        keys, values = cache.update(key, value, call.view.steps, call.view.slots)
        return windowed_attention(query, keys, values, cache.positions, call.view)

    def _positions(self, like: Tensor) -> PositionTables:
        """Project the position table with dtype and device of `like`."""
        # The host may keep this buffer on another device or in another dtype, so cast it here.
        pe = self.pos_encoder.pe[0].to(like)
        # Call the layers rather than use their weights, so that offloaded weights are loaded.
        return PositionTables(
            *(
                rearrange(project(pe), "p (heads d) -> p heads d", heads=HEADS)
                for project in (self.to_q, self.to_k, self.to_v)
            )
        )


class TemporalBlock(nn.Module):
    """Attentions and a feed-forward network, each with a layer norm before it and a residual."""

    def __init__(self, channels: int, layout: MotionLayout, name: str, build: Build) -> None:
        """Create the layers for features of `channels`."""
        super().__init__()
        self.attention_blocks = nn.ModuleList(
            TemporalAttention(channels, layout.positions, f"{name}.{index}", build)
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

    def forward(self, x: Tensor, call: MotionCall, conditionings: Sequence[str]) -> Tensor:
        """Transform features [B*N, HW, C]; see `TemporalAttention`."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x), call, conditionings)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """A group norm, then a transformer over time between two projections."""

    def __init__(self, channels: int, layout: MotionLayout, name: str, build: Build) -> None:
        """Create the layers for features of `channels`."""
        super().__init__()
        self.norm = build.operations.GroupNorm(
            32, channels, eps=1e-6, dtype=build.dtype, device=build.device
        )
        self.proj_in = build.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, layout, name, build)])
        self.proj_out = build.linear(channels, channels)

    def forward(self, x: Tensor, call: MotionCall, conditionings: Sequence[str]) -> Tensor:
        """Transform features [B*N, C, h, w]."""
        tokens = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c"))
        for block in self.transformer_blocks:
            tokens = block(tokens, call, conditionings)
        return rearrange(self.proj_out(tokens), "n (h w) c -> n c h w", h=x.shape[2])


class MotionModule(nn.Module):
    """The module inserted into a UNet block: a temporal transformer with a residual."""

    def __init__(self, channels: int, layout: MotionLayout, name: str, build: Build) -> None:
        """Create the module called `name`, for features of `channels`."""
        super().__init__()
        self.channels = channels
        self.temporal_transformer = TemporalTransformer(channels, layout, name, build)

    def forward(self, x: Tensor, call: MotionCall, conditionings: Sequence[str]) -> Tensor:
        """Correlate features [B*N, C, h, w] over time; see `TemporalAttention`."""
        return x + self.temporal_transformer(x, call, conditionings)


class MotionBlock(nn.Module):
    """The modules of one UNet level."""

    def __init__(
        self, channels: Sequence[int], layout: MotionLayout, name: str, build: Build
    ) -> None:
        """Create one module for each entry of `channels`."""
        super().__init__()
        self.motion_modules = nn.ModuleList(
            MotionModule(width, layout, f"{name}.{index}", build)
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
        self.down_blocks = nn.ModuleList(
            MotionBlock(level, layout, f"down.{n}", build) for n, level in enumerate(layout.down)
        )
        self.up_blocks = nn.ModuleList(
            MotionBlock(level, layout, f"up.{n}", build) for n, level in enumerate(layout.up)
        )
        if layout.mid is not None:
            self.mid_block = MotionBlock((layout.mid,), layout, "mid", build)
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
