"""Reads StreamingT2V's released file, `streaming_t2v.ckpt`, or a safetensors made from it.

The names in it mislead: `base_model.*` is the denoising UNet with the mergers of CAM and the layers
of APM, `unet.*` is the encoder of CAM, `resampler.*` the MLP of APM, `image_encoder.*` an OpenCLIP
ViT-H, `text_encoder.*` the text model of Stable Diffusion 2, and `vae.*` its autoencoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..host.tensor_file import TensorFileError, read_tensors
from .weights import CheckpointError, of_part, shape_of

PARTS = ("base_model", "unet", "resampler", "image_encoder", "text_encoder", "vae")
CONFIG = "config.json"
# Heads of the transformer behind the first convolution, in ModelScope's UNet and the enhancer's.
FIRST_HEADS = 8
_CROSS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
# Which part hands numbers on to which: part, tensor and dimension of both.
_HANDED_ON = (
    (
        *("text_encoder", "text_model.embeddings.token_embedding.weight", 1),
        *("base_model", _CROSS, 1),
    ),
    ("image_encoder", "model.visual.proj", 1, "resampler", "context_embedding.0.weight", 1),
    ("base_model", "conv_out.weight", 0, "vae", "post_quant_conv.weight", 1),
    ("base_model", "conv_out.weight", 0, "unet", "conv_in.weight", 1),
)


@dataclass(frozen=True)
class UNetSizes:
    """Sizes of ModelScope's text-to-video UNet, from the shapes of its tensors.

    Attributes:
        channels: of the levels, (320, 640, 1280, 1280) in the released file.
        context: of a text token, 1024 there.
        head_width: of all attentions, 64 there.
        latent: channels of the latents.
    """

    channels: tuple[int, ...]
    context: int
    head_width: int
    latent: int = 4

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> UNetSizes:
        """Read the sizes from tensors under diffusers' names.

        Raises:
            CheckpointError: a tensor is missing that says one, or they cannot be sizes of a UNet.
        """
        levels = len({name.split(".")[1] for name in tensors if name.startswith("down_blocks.")})
        channels = tuple(
            shape_of(tensors, f"down_blocks.{level}.resnets.0.conv1.weight", 4)[0]
            for level in range(levels)
        )
        context = shape_of(tensors, _CROSS, 2)[1]
        inner, first = shape_of(tensors, "transformer_in.proj_in.weight", 2)
        head_width = inner // FIRST_HEADS
        latent = shape_of(tensors, "conv_in.weight", 4)[1]
        sizes = cls(channels, context, head_width, latent)
        fits = head_width and first == channels[0] and not inner % FIRST_HEADS
        if not fits or any(width % head_width or width % 32 for width in channels):
            raise CheckpointError(f"its shapes contradict each other: {sizes}.")
        return sizes


@dataclass(frozen=True)
class Released:
    """The tensors of such a file.

    Attributes:
        path: the file.
        parts: tensors by part (see `PARTS`), without the part's name.
        config: of a `config.json` beside the file; empty without one.
    """

    path: Path
    parts: dict[str, dict[str, Tensor]]
    config: dict[str, Any]

    def setting(self, part: str, name: str, default: int) -> int:
        """Return a size that no shape says: that of `config.json`, or the released model's."""
        value = self.config.get(part, {}).get(name, default)
        if not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"{CONFIG} beside {self.path.name}: '{part}.{name}' should be a number from 1 on, "
                f"but is {value!r}."
            )
        return value


def read_released(path: Path) -> Released:
    """Read a released file; its tensors lie in the file until they are used.

    Raises:
        CheckpointError: it cannot be read, or parts are missing.
    """
    try:
        tensors = read_tensors(path)
    except TensorFileError as error:
        convert = (
            f" Convert it once: python convert_streamingt2v.py {path.name}, which runs no code of "
            "the file and keeps its tensors only."
            if "code" in str(error)
            else ""
        )
        raise CheckpointError(f"{path.name}: {error}{convert}") from error
    parts = {part: of_part(tensors, f"{part}.") for part in PARTS}
    missing = [part for part, found in parts.items() if not found]
    if missing:
        raise CheckpointError(
            f"{path.name}: this is not StreamingT2V's file: it has no tensors of "
            f"{', '.join(missing)}. It should be streaming_t2v.ckpt from PAIR/StreamingT2V."
        )
    _check_widths(path.name, parts)
    return Released(path, parts, _read_config(path.with_name(CONFIG)))


def _check_widths(name: str, parts: dict[str, dict[str, Tensor]]) -> None:
    """Refuse parts of different models: what one hands on has the width that the next one reads.

    Tensors that are missing are told of where the parts are built.

    Raises:
        CheckpointError: they do not fit.
    """
    for giver, given, given_dim, taker, taken, taken_dim in _HANDED_ON:
        sizes = [
            tensor.shape[dim] if (tensor := parts[part].get(tensor_name)) is not None else None
            for part, tensor_name, dim in ((giver, given, given_dim), (taker, taken, taken_dim))
        ]
        if None not in sizes and sizes[0] != sizes[1]:
            raise CheckpointError(
                f"{name}: its shapes contradict each other: {giver} makes {sizes[0]} numbers "
                f"({given}), and {taker} reads {sizes[1]} ({taken}). Its parts are of different "
                "models: download streaming_t2v.ckpt from PAIR/StreamingT2V again."
            )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: this is no JSON ({error}).") from error
    if not isinstance(found, dict) or not all(isinstance(part, dict) for part in found.values()):
        raise CheckpointError(f"{path}: it should hold sizes by part.")
    return found
