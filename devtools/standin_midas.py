"""A stand-in for MiDaS DPT-hybrid: the real file's layout, seeded random weights.

For tests and demonstrations without the real file. Its output is a smooth function of the picture
rather than depth: bright and dark areas only get different distances.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

# ViT-B/16 on the first three stages of a ResNet-50 (BiT), at 384x384; then DPT's decoder.
_WIDTH = 768
_BLOCKS = 12
_TOKENS = 1 + 24 * 24
_STAGES = ((3, 256), (4, 512), (9, 1024))
_FEATURES = 256
_BRANCHES = (256, 512, 768, 768)
_CLASSES = 1000
_LAST = "scratch.output_conv.4"


def write(path: Path, seed: int = 0) -> None:
    """Write the stand-in to `path` (float16, about 246 MB); the same seed gives the same weights.

    Args:
        path: the file; its folder must exist.
        seed: any integer.
    """
    torch.save(state_dict(seed), path)


def state_dict(seed: int = 0) -> dict[str, Tensor]:
    """Return the stand-in's weights in float16, under the real file's names."""
    return {name: _weight(name, shape, seed).half() for name, shape in layout().items()}


def layout() -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every tensor in the real file."""
    shapes: dict[str, tuple[int, ...]] = {
        "pretrained.model.cls_token": (1, 1, _WIDTH),
        "pretrained.model.pos_embed": (1, _TOKENS, _WIDTH),
    }
    shapes |= _backbone("pretrained.model.patch_embed.backbone.")
    shapes |= _layer("pretrained.model.patch_embed.proj", (_WIDTH, _STAGES[-1][1], 1, 1))
    for index in range(_BLOCKS):
        shapes |= _transformer_block(f"pretrained.model.blocks.{index}.")
    shapes |= _layer("pretrained.model.norm", (_WIDTH,))
    shapes |= _layer("pretrained.model.head", (_CLASSES, _WIDTH))
    for branch in ("pretrained.act_postprocess3.", "pretrained.act_postprocess4."):
        shapes |= _layer(branch + "0.project.0", (_WIDTH, 2 * _WIDTH))
        shapes |= _layer(branch + "3", (_WIDTH, _WIDTH, 1, 1))
    shapes |= _layer("pretrained.act_postprocess4.4", (_WIDTH, _WIDTH, 3, 3))
    return shapes | _decoder("scratch.")


def _backbone(prefix: str) -> dict[str, tuple[int, ...]]:
    shapes = {prefix + "stem.conv.weight": (64, 3, 7, 7)} | _layer(prefix + "stem.norm", (64,))
    incoming = 64
    for stage, (depth, width) in enumerate(_STAGES):
        for block in range(depth):
            name = f"{prefix}stages.{stage}.blocks.{block}."
            if block == 0:
                shapes[name + "downsample.conv.weight"] = (width, incoming, 1, 1)
                shapes |= _layer(name + "downsample.norm", (width,))
            inner = width // 4
            convolutions = ((inner, incoming, 1, 1), (inner, inner, 3, 3), (width, inner, 1, 1))
            for number, shape in enumerate(convolutions, start=1):
                shapes[f"{name}conv{number}.weight"] = shape
                shapes |= _layer(f"{name}norm{number}", shape[:1])
            incoming = width
    return shapes


def _transformer_block(prefix: str) -> dict[str, tuple[int, ...]]:
    return (
        _layer(prefix + "norm1", (_WIDTH,))
        | _layer(prefix + "attn.qkv", (3 * _WIDTH, _WIDTH))
        | _layer(prefix + "attn.proj", (_WIDTH, _WIDTH))
        | _layer(prefix + "norm2", (_WIDTH,))
        | _layer(prefix + "mlp.fc1", (4 * _WIDTH, _WIDTH))
        | _layer(prefix + "mlp.fc2", (_WIDTH, 4 * _WIDTH))
    )


def _decoder(prefix: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for index, channels in enumerate(_BRANCHES, start=1):
        shapes[f"{prefix}layer{index}_rn.weight"] = (_FEATURES, channels, 3, 3)
    for index in range(1, len(_BRANCHES) + 1):
        name = f"{prefix}refinenet{index}."
        shapes |= _layer(name + "out_conv", (_FEATURES, _FEATURES, 1, 1))
        for unit in ("resConfUnit1.", "resConfUnit2."):
            for convolution in ("conv1", "conv2"):
                shapes |= _layer(name + unit + convolution, (_FEATURES, _FEATURES, 3, 3))
    shapes |= _layer(prefix + "output_conv.0", (_FEATURES // 2, _FEATURES, 3, 3))
    shapes |= _layer(prefix + "output_conv.2", (32, _FEATURES // 2, 3, 3))
    return shapes | _layer(_LAST, (1, 32, 1, 1))


def _layer(name: str, weight: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {name + ".weight": weight, name + ".bias": weight[:1]}


def _weight(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw random weights that keep activations near unit size; each tensor has its own seed."""
    if name == _LAST + ".bias":
        return torch.full(shape, 6.0)
    if name.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    generator = torch.Generator().manual_seed(seed + zlib.crc32(name.encode()))
    if name.startswith("scratch.") and shape[2:] == (3, 3):
        # The same value at all nine places is a box blur, so the decoder adds no texture.
        weight = torch.randn((*shape[:2], 1, 1), generator=generator)
        return weight.expand(shape) / (9 * math.sqrt(shape[1]))
    weight = torch.randn(shape, generator=generator)
    if "token" in name or name.endswith("pos_embed"):
        return 0.02 * weight
    return weight / math.sqrt(math.prod(shape[1:]))
