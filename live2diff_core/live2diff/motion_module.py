"""The temporal transformers that motion modules insert into the UNet, in AnimateDiff's layout.

Module names spell the keys of the published files, so that these load without a table.
Layers come from the host (`comfy.ops`), whose memory manager owns the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.ldm.modules.attention as host_attention
import torch
from torch import Tensor, nn

from .attention import PositionTables, windowed_attention
from .depth_encoder import DepthEncoder
from .layout import MotionLayout
from .memory import MotionCall

HEADS = 8


@dataclass(frozen=True)
class Build:
    """How layers are made: passed down the constructors."""

    dtype: torch.dtype
    device: torch.device
    operations: Any

    def linear(self, inner: int, outer: int, bias: bool = True) -> nn.Module:
        """Make one of the host's linear layers."""
        return self.operations.Linear(inner, outer, bias=bias, dtype=self.dtype, device=self.device)

    def layer_norm(self, channels: int) -> nn.Module:
        """Make one of the host's layer norms."""
        return self.operations.LayerNorm(channels, dtype=self.dtype, device=self.device)


class PositionEncoder(nn.Module):
    """Holds the sinusoidal table `pe` [1, P, C]."""

    pe: Tensor

    def __init__(self, channels: int, positions: int, build: Build) -> None:
        """Reserve the table; the file fills it."""
        super().__init__()
        table = torch.empty(1, positions, channels, dtype=build.dtype, device=build.device)
        self.register_buffer("pe", table)


class TemporalAttention(nn.Module):
    """Self-attention over time, per pixel, against a KV-cache that the stream owns.

    Warm-up and streaming are this same module: only the window differs.
    """

    def __init__(self, channels: int, positions: int, name: str, build: Build) -> None:
        """Build the projections; `name` is the key of this attention's caches."""
        super().__init__()
        self.name = name
        self.to_q = build.linear(channels, channels, bias=False)
        self.to_k = build.linear(channels, channels, bias=False)
        self.to_v = build.linear(channels, channels, bias=False)
        self.to_out = nn.ModuleList([build.linear(channels, channels)])
        self.pos_encoder = PositionEncoder(channels, positions, build)

    def forward(self, x: Tensor, step: MotionCall, conditionings: Sequence[str]) -> Tensor:
        """Attend over time.

        Args:
            x: [B*N, HW, C] normalised features; B conditionings of N rows each.
            step: caches and windows of this call.
            conditionings: B names, in batch order.
        """
        query, key, value = (
            self._by_group(project(x), step, len(conditionings))
            for project in (self.to_q, self.to_k, self.to_v)
        )  # [B, R, HW, heads, Q, d]
        out = torch.stack(
            [
                self._attend(name, query[b], key[b], value[b], step)
                for b, name in enumerate(conditionings)
            ]
        )
        out = out.permute(0, 1, 4, 2, 3, 5).reshape(x.shape)  # [B, R, Q, HW, heads, d]
        return self.to_out[0](out)

    def _attend(
        self, conditioning: str, query: Tensor, key: Tensor, value: Tensor, step: MotionCall
    ) -> Tensor:
        """Attend for one conditioning: all [R, HW, heads, Q, d]."""
        cache = step.memory.cache(conditioning, self.name, key, lambda: self._positions(query))
        keys, values = cache.update(key, value, step.view.steps, step.view.slots)
        return windowed_attention(query, keys, values, cache.positions, step.view)

    def _by_group(self, x: Tensor, step: MotionCall, batch: int) -> Tensor:
        """Split rows into groups and channels into heads: to [B, R, HW, heads, Q, d]."""
        groups, queries = step.view.slots.shape
        tokens, channels = x.shape[1:]
        x = x.view(batch, groups, queries, tokens, HEADS, channels // HEADS)
        return x.permute(0, 1, 3, 4, 2, 5)

    def _positions(self, like: Tensor) -> PositionTables:
        """Project the position table: through the layers' own calls, so that offloading works."""
        # The host may keep this buffer elsewhere or in another type: cast where it is used.
        pe = self.pos_encoder.pe[0].to(device=like.device, dtype=like.dtype)
        return PositionTables(
            *(
                project(pe).view(len(pe), HEADS, -1)  # [P, heads, d]
                for project in (self.to_q, self.to_k, self.to_v)
            )
        )


class TemporalBlock(nn.Module):
    """Attentions, then a feed-forward, each added to its input after a layer norm."""

    def __init__(self, channels: int, layout: MotionLayout, name: str, build: Build) -> None:
        """Build one transformer block of a module of `channels`."""
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

    def forward(self, x: Tensor, step: MotionCall, conditionings: Sequence[str]) -> Tensor:
        """Transform features [B*N, HW, C]."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x), step, conditionings)
        return x + self.ff(self.ff_norm(x))


class TemporalTransformer(nn.Module):
    """Normalise, project to tokens, transform over time, project back."""

    def __init__(self, channels: int, layout: MotionLayout, name: str, build: Build) -> None:
        """Build for features of `channels`."""
        super().__init__()
        self.norm = build.operations.GroupNorm(
            32, channels, eps=1e-6, dtype=build.dtype, device=build.device
        )
        self.proj_in = build.linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, layout, name, build)])
        self.proj_out = build.linear(channels, channels)

    def forward(self, x: Tensor, step: MotionCall, conditionings: Sequence[str]) -> Tensor:
        """Transform features [B*N, C, h, w], without the residual."""
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # [B*N, HW, C]
        tokens = self.proj_in(tokens)
        for block in self.transformer_blocks:
            tokens = block(tokens, step, conditionings)
        return self.proj_out(tokens).transpose(1, 2).reshape(x.shape)


class MotionModule(nn.Module):
    """One inserted module: a temporal transformer added to its input."""

    def __init__(self, channels: int, layout: MotionLayout, name: str, build: Build) -> None:
        """Build the module called `name`."""
        super().__init__()
        self.channels = channels
        self.temporal_transformer = TemporalTransformer(channels, layout, name, build)

    def forward(self, x: Tensor, step: MotionCall, conditionings: Sequence[str]) -> Tensor:
        """Correlate features [B*N, C, h, w] over time; B is the number of `conditionings`."""
        return x + self.temporal_transformer(x, step, conditionings)


class MotionBlock(nn.Module):
    """The modules of one UNet level."""

    def __init__(
        self, channels: Sequence[int], layout: MotionLayout, name: str, build: Build
    ) -> None:
        """Build one module per entry of `channels`."""
        super().__init__()
        self.motion_modules = nn.ModuleList(
            MotionModule(width, layout, f"{name}.{index}", build)
            for index, width in enumerate(channels)
        )


class MotionModel(nn.Module):
    """All motion modules of a UNet, and the depth encoder where the file has one."""

    def __init__(self, layout: MotionLayout, build: Build) -> None:
        """Build without initialising weights."""
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
        """Build and fill from a file's tensors; their keys must match exactly."""
        model = cls(layout, build)
        model.load_state_dict(tensors, strict=True)
        return model.eval().requires_grad_(False)
