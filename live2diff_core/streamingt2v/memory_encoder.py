"""CAM, the conditional attention module: the motion of the chunk before in the next one.

Paper: Henschel et al., "StreamingT2V", section 4.1. An encoder, the copy of the UNet's down half,
looks at the noisy latents of the first frames of a chunk together with the last pictures of the
chunk before; the mergers let the UNet's skip connections attend to what it finds.
"""

from __future__ import annotations

from typing import Any

from diffusers import UNet3DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn.functional import silu

NORM_GROUPS = 32
_MERGER_EPS = 1e-6


class PictureEncoder(nn.Module):
    """Convolutions that bring pictures to the size and width of the latents' features.

    Args:
        channels: of its four stages.
        out_channels: of the features.
    """

    def __init__(self, channels: tuple[int, ...], out_channels: int) -> None:
        """Make the layers; between two stages one halves the sides."""
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in zip(channels, channels[1:], strict=False):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(channels[-1], out_channels, 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        """From pictures [F, 3, 8h, 8w] in -1..1 to features [F, C, h, w]."""
        features = silu(self.conv_in(pictures))
        for block in self.blocks:
            features = silu(block(features))
        return self.conv_out(features)


class MemoryEncoder(UNet3DConditionModel):
    """The encoder of CAM: the down half of the UNet, with weights of its own.

    Args:
        stages: channels of the picture encoder.
        config: as for diffusers' `UNet3DConditionModel`.
    """

    def __init__(self, stages: tuple[int, ...], **config: Any) -> None:
        """Make the layers, without an up half."""
        super().__init__(**config)
        first = self.config.block_out_channels[0]
        self.controlnet_cond_embedding = PictureEncoder(stages, first)
        for name in ("up_blocks", "conv_norm_out", "conv_act", "conv_out"):
            delattr(self, name)

    def forward(
        self, latents: Tensor, timestep: Tensor, text: Tensor, features: Tensor
    ) -> tuple[Tensor, ...]:
        """Look at the frames that the chunk before has already shown.

        Args:
            latents: noisy, [N, 4, F, h, w]: the first F frames of the chunk.
            timestep: 0-d.
            text: [N, 77, C].
            features: [F, C, h, w], of the F last pictures of the chunk before.

        Returns:
            What the skip connections carry and the middle block's output, [N * F, C, ., .] each.
        """
        rows, _, frames = latents.shape[:3]
        time = self.time_proj(timestep.expand(rows)).to(latents.dtype)
        # [N, C] -> [N * F, C]
        time = self.time_embedding(time).repeat_interleave(frames, dim=0)
        text = text.repeat_interleave(frames, dim=0)
        # [N, 4, F, h, w] -> [N * F, 4, h, w]
        hidden = self.conv_in(latents.transpose(1, 2).flatten(0, 1))
        hidden = self.transformer_in(hidden, num_frames=frames, return_dict=False)[0]
        hidden = hidden + features.repeat(rows, 1, 1, 1)
        found = [hidden]
        for block in self.down_blocks:
            context = {"encoder_hidden_states": text} if hasattr(block, "attentions") else {}
            hidden, skips = block(hidden_states=hidden, temb=time, num_frames=frames, **context)
            found += skips
        hidden = self.mid_block(hidden, time, encoder_hidden_states=text, num_frames=frames)
        return (*found, hidden)


class Merger(nn.Module):
    """Lets every frame of a skip connection attend to the encoder's features, per position.

    It has no positions and no feed-forward; only the skip connection is normalised.

    Args:
        channels: of both.
        head_width: of the attention.
    """

    def __init__(self, channels: int, head_width: int) -> None:
        """Make the layers, under the names of the released file."""
        super().__init__()
        self.temporal_transformer = layers = nn.Module()
        layers.norm = nn.GroupNorm(NORM_GROUPS, channels, eps=_MERGER_EPS)
        layers.proj_in = nn.Linear(channels, channels)
        layers.attention = Attention(channels, heads=channels // head_width, dim_head=head_width)
        layers.proj_out = nn.Linear(channels, channels)

    def forward(self, skip: Tensor, features: Tensor, rows: int) -> Tensor:
        """Merge features [N * M, C, h, w] of M frames into a skip [N * F, C, h, w] of N `rows`."""
        layers: Any = self.temporal_transformer
        height, width = skip.shape[2:]
        # [N * F, C, h, w] -> [N, C, F, h, w]: the norm is over all frames of a row.
        framed = skip.unflatten(0, (rows, -1)).transpose(1, 2)
        queries = layers.proj_in(_by_position(layers.norm(framed)))
        keys = _by_position(features.unflatten(0, (rows, -1)).transpose(1, 2))
        merged = layers.proj_out(layers.attention(queries, encoder_hidden_states=keys))
        # [N * h * w, F, C] -> [N * F, C, h, w]
        merged = merged.unflatten(0, (rows, height, width)).permute(0, 3, 4, 1, 2)
        return skip + merged.flatten(0, 1)


def _by_position(framed: Tensor) -> Tensor:
    """From [N, C, F, h, w] to [N * h * w, F, C]."""
    return framed.permute(0, 3, 4, 2, 1).flatten(0, 2)
