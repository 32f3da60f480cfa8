"""Read motion-module files, recognised by keys and shapes, never by name; refuse other files."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..host.tensor_file import TensorFileError, read_tensors
from .layout import MotionLayout
from .motion_module import Build, MotionModel

EXPECTED = (
    "Expected a motion module for SD1.5: Live2Diff's live2diff.ckpt, or AnimateDiff's "
    "mm_sd_v14, mm_sd_v15, mm_sd_v15_v2 or v3_sd15_mm (.ckpt, .pth or .safetensors)."
)
_LEVELS = 4
_MODULE_KEY = re.compile(r"^(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?motion_modules\.(\d+)\.")


class MotionFileError(ValueError):
    """A file is no motion module; the message says why, and which files are expected."""


def read_motion_file(path: str | Path) -> tuple[MotionLayout, dict[str, Tensor]]:
    """Read a motion module and its layout; see `read_tensors` for the kinds of file.

    Returns:
        The layout, and the tensors under the keys of `MotionModel`.

    Raises:
        MotionFileError: the file cannot be read, or is no motion module.
    """
    path = Path(path)
    try:
        tensors = read_tensors(path)
        _refuse_other_models(tensors)
        layout = _layout(tensors)
        kept = {
            key: value
            for key, value in tensors.items()
            if _MODULE_KEY.match(key) or key.startswith("flow_conv_in.")
        }
        _check_complete(layout, kept)
    except TensorFileError as error:
        raise MotionFileError(f"{path.name}: {error} {EXPECTED}") from error
    if len(kept) < len(tensors):
        dropped = len(tensors) - len(kept)
        logging.info("Live2Diff: %s: %d other tensors left out.", path.name, dropped)
    return layout, kept


def _refuse_other_models(tensors: Mapping[str, Tensor]) -> None:
    """Refuse the kinds of model that are mistaken for motion modules, and name them."""

    def has(*parts: str) -> bool:
        return any(part in key for key in tensors for part in parts)

    if has("lora_up", "lora_down", "lora_A.", "lora_B.", "_lora."):
        raise TensorFileError("this is a LoRA. Load it with a LoRA loader.")
    if has("model.diffusion_model.", "first_stage_model.", "cond_stage_model."):
        raise TensorFileError("this is a whole checkpoint. Load it with core's Load Checkpoint.")
    if has("control_model.", "controlnet_cond_embedding", "input_hint_block"):
        raise TensorFileError("this is a ControlNet. Load it with core's Load ControlNet.")
    if not any(_MODULE_KEY.match(key) for key in tensors):
        some = ", ".join(list(tensors)[:3])
        raise TensorFileError(f"it has no motion modules; its tensors begin with {some}.")


def _layout(tensors: Mapping[str, Tensor]) -> MotionLayout:
    widths: dict[tuple[str, int, int], int] = {}
    for key, tensor in tensors.items():
        match = _MODULE_KEY.match(key)
        if match and key.endswith("temporal_transformer.proj_in.weight"):
            part, level, index = match.groups()
            widths[part, int(level or 0), int(index)] = tensor.shape[0]
    down, up = (_levels(widths, part) for part in ("down_blocks", "up_blocks"))
    if len(down) == _LEVELS - 1:
        raise TensorFileError(
            "this is a motion module for SDXL (its UNet has three levels, SD1.5's has four)."
        )
    shapes = [len(level) for level in (*down, *up)]
    if shapes != [2] * _LEVELS + [3] * _LEVELS:
        raise TensorFileError(
            f"it is incomplete: modules per level are {shapes}, not {[2] * 4 + [3] * 4}."
        )
    tables = [t.shape for key, t in tensors.items() if key.endswith("pos_encoder.pe")]
    if len({shape[1] for shape in tables}) != 1:
        raise TensorFileError("its position tables are missing or differ in length.")
    depth = tensors.get("flow_conv_in.conv_out.weight")
    return MotionLayout(
        down=down,
        up=up,
        mid=widths.get(("mid_block", 0, 0)),
        positions=tables[0][1],
        depth_channels=None if depth is None else depth.shape[0],
        attentions=len(tables) // len(widths),
    )


def _levels(widths: Mapping[tuple[str, int, int], int], part: str) -> tuple[tuple[int, ...], ...]:
    levels = sorted({level for name, level, _ in widths if name == part})
    return tuple(
        tuple(widths[key] for key in sorted(widths) if key[:2] == (part, level)) for level in levels
    )


def _check_complete(layout: MotionLayout, tensors: Mapping[str, Tensor]) -> None:
    """Compare keys and shapes with those of the model, which is created on the meta device."""
    build = Build(torch.float32, torch.device("meta"), nn)
    expected = {key: t.shape for key, t in MotionModel(layout, build).state_dict().items()}
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise TensorFileError(
            f"it is incomplete: {len(missing)} tensors are missing, first {missing[0]}."
        )
    for key, tensor in tensors.items():
        if key not in expected:
            raise TensorFileError(f"it has a layer that is not known: {key}.")
        if tensor.shape != expected[key]:
            raise TensorFileError(
                f"{key} has shape {list(tensor.shape)} where {list(expected[key])} belongs."
            )
