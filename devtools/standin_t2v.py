"""Stand-ins of StreamingT2V and of the video enhancer: their names and layers, narrow and random.

Names and shapes of the networks that diffusers has come from it; see `standin_layouts` for the
others. Weights are drawn so that pictures are texture.
"""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from live2diff_core.streamingt2v.denoiser import Denoiser
from live2diff_core.streamingt2v.enhancer_file import EnhancerUNet
from live2diff_core.streamingt2v.released_file import UNetSizes

Shapes = dict[str, tuple[int, ...]]
CONTEXT, HEAD, WORDS = 64, 16, 49408
SIZES = UNetSizes((32, 32, 32, 64), CONTEXT, HEAD)
STAGES = (8, 12, 16, 24)
TEXT_TOKENS, IMAGE_TOKENS, EMBEDDING, INNER = 77, 16, 32, 40
VISION_HEAD, TEXT_HEADS = 16, 4
# What the released file has, for `denoiser_shapes`.
RELEASED = (UNetSizes((320, 640, 1280, 1280), 1024, 64), (32, 96, 256, 512), 77, 16, 1024, 1280)
# Small ends keep the noise that is predicted, and what attention adds, small.
_SMALL_ENDS = ("conv_out.weight", "proj_out.weight", "conv4.3.weight", "out.2.weight")
_GAIN = 0.3


def denoiser_shapes(*sizes: Any) -> Shapes:
    """Return the layout of UNet, CAM and APM; `sizes` as for `Denoiser`."""
    with torch.device("meta"):
        made = Denoiser(*(sizes or (SIZES, STAGES, 77, IMAGE_TOKENS, EMBEDDING, INNER)))
    return {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, out: int, width: int) -> Shapes:
    return {f"{name}.weight": (out, width), f"{name}.bias": (out,)}


def image_encoder_shapes(width: int = 32, patch: int = 32, layers: int = 2) -> Shapes:
    """Return the layout of OpenCLIP's image encoder, `image_encoder.model.visual.*`."""
    prefix = "image_encoder.model.visual."
    shapes: Shapes = {
        f"{prefix}class_embedding": (width,),
        f"{prefix}positional_embedding": ((224 // patch) ** 2 + 1, width),
        f"{prefix}proj": (width, EMBEDDING),
        f"{prefix}conv1.weight": (width, 3, patch, patch),
        **_norm(f"{prefix}ln_pre", width),
        **_norm(f"{prefix}ln_post", width),
    }
    for index in range(layers):
        block = f"{prefix}transformer.resblocks.{index}"
        shapes |= {**_norm(f"{block}.ln_1", width), **_norm(f"{block}.ln_2", width)}
        shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
        shapes |= _linear(f"{block}.attn.out_proj", width, width)
        shapes |= _linear(f"{block}.mlp.c_fc", 4 * width, width)
        shapes |= _linear(f"{block}.mlp.c_proj", width, 4 * width)
    return shapes


def text_encoder_shapes(width: int = CONTEXT, layers: int = 2) -> Shapes:
    """Return the layout of the text encoder, `text_encoder.text_model.*`."""
    prefix = "text_encoder.text_model."
    shapes: Shapes = {
        f"{prefix}embeddings.token_embedding.weight": (WORDS, width),
        f"{prefix}embeddings.position_embedding.weight": (TEXT_TOKENS, width),
        **_norm(f"{prefix}final_layer_norm", width),
    }
    for index in range(layers):
        block = f"{prefix}encoder.layers.{index}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _linear(f"{block}.self_attn.{name}", width, width)
        shapes |= _linear(f"{block}.mlp.fc1", 4 * width, width)
        shapes |= _linear(f"{block}.mlp.fc2", width, 4 * width)
        shapes |= {**_norm(f"{block}.layer_norm1", width), **_norm(f"{block}.layer_norm2", width)}
    return shapes


def vae_shapes(widths: tuple[int, ...] = (32, 32, 32, 32)) -> Shapes:
    """Return the layout of the VAE, `vae.*`, under diffusers' names."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        made = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            block_out_channels=widths,
            layers_per_block=2,
            latent_channels=4,
        )
    return {f"vae.{name}": tuple(tensor.shape) for name, tensor in made.state_dict().items()}


def t2v_shapes() -> Shapes:
    """Return the layout of the stand-in of the released file."""
    return {
        **denoiser_shapes(),
        **image_encoder_shapes(),
        **text_encoder_shapes(),
        **vae_shapes(),
    }


def enhancer_shapes() -> Shapes:
    """Return the layout of the stand-in of the enhancer, under the names of its file."""
    with torch.device("meta"):
        made = EnhancerUNet(SIZES).unet
    shapes = {}
    for name, tensor in made.state_dict().items():
        shape = tuple(tensor.shape)
        temporal = name.startswith("transformer_in.") or "temp_attentions." in name
        if temporal and ".proj_" in f".{name}" and name.endswith("weight"):
            if "transformer_blocks" not in name:
                shape = (*shape, 1)
        shapes[file_name(name)] = shape
    return shapes


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "transformer_in": "input_blocks.0.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_PARTS = {"resnets": 0, "temp_convs": 0, "attentions": 1, "temp_attentions": 2}


def file_name(name: str) -> str:
    """Return the name in the enhancer's file of one of diffusers' tensors."""
    for ours, theirs in _ENDS.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    block, rest = name.split(".", 1)
    level = 0
    if block != "mid_block":
        number, rest = rest.split(".", 1)
        level = int(number)
    kind, index, inner = rest.split(".", 2)
    if kind == "downsamplers":
        return f"input_blocks.{3 * level + 3}.op.{inner.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * level + 2}.{3 if level else 1}.{inner}"
    if kind == "temp_convs":
        inner = f"temopral_conv.{inner}"
    elif kind == "resnets":
        layer, end = inner.rsplit(".", 1)
        inner = f"{_RESNET[layer]}.{end}"
    part, at = _PARTS[kind], int(index)
    if block == "mid_block":
        return f"middle_block.{part + 3 * at}.{inner}"
    first = "input_blocks" if block == "down_blocks" else "output_blocks"
    return f"{first}.{3 * level + at + (block == 'down_blocks')}.{part}.{inner}"


def drawn(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Draw float16 weights, scaled by fan-in and seeded by name; norms are one, biases zero."""
    return {name: _drawn(name, shape) for name, shape in shapes.items()}


def _drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    if not shape:
        return torch.tensor(0.5, dtype=torch.float16)
    if len(shape) == 1 and "embedding" not in name:
        return torch.full(shape, float(name.endswith("weight")), dtype=torch.float16)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    gain = _GAIN if name.endswith(_SMALL_ENDS) else 1.0
    scale = gain / math.sqrt(math.prod(shape[1:]))
    return torch.randn(shape, generator=generator).mul_(scale).half()


def write_t2v(path: Path) -> None:
    """Write the stand-in of `streaming_t2v.ckpt`; it needs its `config.json` beside it."""
    torch.save({"global_step": 0, "state_dict": drawn(t2v_shapes())}, str(path))


def write_config(path: Path) -> None:
    """Write the `config.json` with the widths that no shape says."""
    config = {"clip_vision": {"head_width": VISION_HEAD}, "text_encoder": {"heads": TEXT_HEADS}}
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")


def write_enhancer(path: Path) -> None:
    """Write the stand-in of the enhancer's UNet: a pickle, or a safetensors by its suffix."""
    tensors = drawn(enhancer_shapes())
    if path.suffix == ".safetensors":
        save_file(tensors, str(path))
    else:
        torch.save({"state_dict": tensors}, str(path))
