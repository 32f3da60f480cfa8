"""The sample model's networks, built from the host's own classes, without weights.

The same functions build them for training and for use.
"""

from __future__ import annotations

from typing import Any

import comfy.clip_model
import comfy.ops
import comfy.supported_models
import torch
from comfy.taesd.taesd import TAESD, Block, Clamp, conv
from torch import nn

# SD1.5's blocks, narrow. Of GroupNorm's 32 groups each needs two channels at least: one channel
# alone would lose its mean, and with it the brightness of the picture.
UNET: dict[str, Any] = {
    "use_checkpoint": False,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "adm_in_channels": None,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "channel_mult": [1, 1, 1, 2],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "context_dim": 64,
    "use_temporal_resblock": False,
    "use_temporal_attention": False,
    "num_heads": 8,
    "num_head_channels": -1,
}

# CLIP's text model, narrow and flat. It knows the words of `prompts.py` in training/sample_model.
TEXT: dict[str, Any] = {
    "hidden_size": UNET["context_dim"],
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "vocab_size": 49408,
}


def build_base(dtype: torch.dtype) -> Any:
    """Build the host's BaseModel around the UNet."""
    config = comfy.supported_models.SD15(dict(UNET))
    config.set_inference_dtype(dtype, None)
    return config.get_model({}, "")


def build_text_encoder() -> comfy.clip_model.CLIPTextModel:
    """Build the text encoder as the host's SDClipModel does."""
    device = torch.device("cpu")
    return comfy.clip_model.CLIPTextModel(TEXT, torch.float32, device, comfy.ops.manual_cast)


# Deviation of the latents as the UNet sees them; SD1.5's is 1. At the same noise more is left of a
# picture, which a small model at small sizes needs: it has few pixels to average over.
LATENT_DEVIATION = 3.0

# TAESD's channels from the full size down to an eighth of it; the published one has 64 everywhere.
VAE_WIDTHS = (16, 32, 48, 64)
_BLOCKS = 3


def build_autoencoder() -> TAESD:
    """Build the VAE: the host's TAESD with fewer channels, under the same names.

    It has no normalisation, so that it depends neither on the size of a picture nor on the number
    of channels.
    """
    first, *others = VAE_WIDTHS
    down = [conv(3, first), Block(first, first)]
    for outer, inner in zip(VAE_WIDTHS, others, strict=False):
        down += [conv(outer, inner, stride=2, bias=False)]
        down += [Block(inner, inner) for _ in range(_BLOCKS)]
    up = [Clamp(), conv(4, VAE_WIDTHS[-1]), nn.ReLU()]
    for inner, outer in zip(VAE_WIDTHS[::-1], VAE_WIDTHS[-2::-1], strict=False):
        up += [Block(inner, inner) for _ in range(_BLOCKS)]
        up += [nn.Upsample(scale_factor=2), conv(inner, outer, bias=False)]
    network = TAESD()
    network.taesd_encoder = nn.Sequential(*down, conv(VAE_WIDTHS[-1], 4))
    network.taesd_decoder = nn.Sequential(*up, Block(first, first), conv(first, 3))
    return network
