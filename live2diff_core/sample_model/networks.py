"""The sample model's networks, built from the host's own classes, without weights.

The same functions build them for training and for use.
"""

from __future__ import annotations

from typing import Any

import comfy.clip_model
import comfy.ops
import comfy.supported_models
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL

# SD1.5's blocks, at a tenth of the width. Widths are multiples of GroupNorm's 32 groups.
UNET: dict[str, Any] = {
    "use_checkpoint": False,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "adm_in_channels": None,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "channel_mult": [1, 2, 3, 4],
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

_COMMON = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "num_res_blocks": 0,
    "attn_resolutions": [],
    "dropout": 0.0,
}
# Without residual blocks the encoder is linear down to an eighth of the size, where it thinks; so
# it costs a sixth of the decoder.
VAE: dict[str, Any] = {
    "ddconfig": {**_COMMON, "ch": 64, "ch_mult": [1, 1, 1, 1]},
    "decoder_ddconfig": {**_COMMON, "ch": 32, "ch_mult": [1, 1, 2, 4]},
    "embed_dim": 4,
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


def build_autoencoder() -> AutoencoderKL:
    """Build the VAE."""
    return AutoencoderKL(**VAE)
