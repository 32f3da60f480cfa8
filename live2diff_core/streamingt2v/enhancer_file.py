"""Reads the UNet of the video enhancer, MS-Vid2Vid-XL, and renames its tensors for diffusers.

Its file, `non_ema_0035000.pth` of `damo/Video-to-Video`, has the names of latent diffusion's own
code: numbered blocks of numbered parts.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import UNet3DConditionModel
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..host.tensor_file import TensorFileError, read_tensors
from .released_file import UNetSizes
from .weights import CheckpointError, fill

LAYERS_PER_BLOCK = 2
# Blocks per level on the way down, with the downsampling, and on the way up.
_PER_LEVEL = 3
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "input_blocks.0.1": "transformer_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
# Misspelt there.
_TEMPORAL = "temopral_conv."
_WRAPPER = "diffusion_model."


class CuttingUpsampler(nn.Module):
    """Doubles the sides, cuts a row at the top and at the bottom, and convolves.

    Args:
        conv: the convolution.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        """Take the convolution over."""
        super().__init__()
        self.conv = conv

    def forward(self, hidden: Tensor, upsample_size: object = None) -> Tensor:
        """From [N, C, h, w] to [N, C, 2h - 2, 2w], whatever size diffusers asks for."""
        return self.conv(interpolate(hidden, scale_factor=2.0, mode="nearest")[:, :, 1:-1])


class EnhancerUNet(nn.Module):
    """The enhancer's UNet as a model of the host, which writes an attribute `device`.

    Args:
        sizes: of the UNet.
    """

    def __init__(self, sizes: UNetSizes) -> None:
        """Make the layers."""
        super().__init__()
        self.sizes = sizes
        self.unet = _with_its_samplers(
            UNet3DConditionModel(
                in_channels=sizes.latent,
                out_channels=sizes.latent,
                block_out_channels=sizes.channels,
                layers_per_block=LAYERS_PER_BLOCK,
                cross_attention_dim=sizes.context,
                attention_head_dim=sizes.head_width,
            )
        )

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        return self.unet.conv_in.weight.dtype

    def forward(self, latents: Tensor, timestep: Tensor, text: Tensor) -> Tensor:
        """Predict v.

        Args:
            latents: [N, 4, F, h, w] of unit variance; h is 2 modulo 8, w a multiple of 8.
            timestep: 0-d, 0..999.
            text: [N, 77, C].

        Returns:
            [N, 4, F, h, w], float32.
        """
        weights = self.unet.conv_in.weight
        rows, text = latents.to(weights), text.to(weights)
        timestep = timestep.to(weights.device)
        return self.unet(rows, timestep, text, return_dict=False)[0].float()


def build_enhancer(path: Path, dtype: torch.dtype) -> EnhancerUNet:
    """Build the enhancer's UNet, on the CPU in `dtype`.

    Its downsampling pads two rows above and below and its upsampling cuts them off again, so the
    height of its latents is 2 modulo 8: 90 to 46 to 24 to 13, and back.

    Raises:
        CheckpointError: the file cannot be used; the message says why.
    """
    try:
        tensors = renamed(read_tensors(path))
        sizes = UNetSizes.of(tensors)
        with torch.device("meta"):
            made = EnhancerUNet(sizes)
        tensors = {f"unet.{name}": tensor for name, tensor in tensors.items()}
        return fill(made, tensors, dtype, "the enhancer")
    except (CheckpointError, TensorFileError) as error:
        raise CheckpointError(
            f"{path.name}: {error} It should be the UNet of MS-Vid2Vid-XL: non_ema_0035000.pth "
            "from damo/Video-to-Video."
        ) from error


def _with_its_samplers(unet: UNet3DConditionModel) -> UNet3DConditionModel:
    for block in unet.down_blocks:
        for sampler in block.downsamplers or ():
            sampler.conv.padding = (2, 1)
    for block in unet.up_blocks:
        if block.upsamplers:
            block.upsamplers = nn.ModuleList(CuttingUpsampler(s.conv) for s in block.upsamplers)
    return unet


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of the file diffusers' names; convolutions over one frame become linear.

    Raises:
        CheckpointError: there is a name that the enhancer does not have.
    """
    found = {}
    for name, tensor in tensors.items():
        new = _renamed(name.removeprefix(_WRAPPER))
        temporal = "temp_attentions." in new or new.startswith("transformer_in.")
        if temporal and tensor.ndim == 3:
            tensor = tensor.squeeze(-1)
        found[new] = tensor
    return found


def _renamed(name: str) -> str:
    for old, new in _ENDS.items():
        if name.startswith(f"{old}."):
            return name.replace(old, new, 1)
    kind, *numbers, rest = name.split(".", 2 if name.startswith("middle_block.") else 3)
    try:
        if kind == "middle_block":
            return f"mid_block.{_middle(int(numbers[0]), rest)}"
        block, part = int(numbers[0]), numbers[1]
        if kind == "input_blocks":
            level, index = divmod(block - 1, _PER_LEVEL)
            if part == "op":
                return f"down_blocks.{level}.downsamplers.0.conv.{rest}"
            return f"down_blocks.{level}.{_layer(int(part), index, rest)}"
        if kind == "output_blocks":
            level, index = divmod(block, _PER_LEVEL)
            if rest.startswith("conv."):
                return f"up_blocks.{level}.upsamplers.0.{rest}"
            return f"up_blocks.{level}.{_layer(int(part), index, rest)}"
    except (ValueError, IndexError, KeyError):
        pass
    raise CheckpointError(f"it has a tensor '{name}', which is not one of the enhancer's.")


def _middle(part: int, rest: str) -> str:
    """Name a part of the middle block: ResNet, spatial, temporal transformer, ResNet."""
    return _layer(part % 3, part // 3, rest)


def _layer(part: int, index: int, rest: str) -> str:
    if part:
        return f"{('attentions', 'temp_attentions')[part - 1]}.{index}.{rest}"
    if rest.startswith(_TEMPORAL):
        return f"temp_convs.{index}.{rest.removeprefix(_TEMPORAL)}"
    old, _, kind = rest.rpartition(".")
    return f"resnets.{index}.{_RESNET[old]}.{kind}"
