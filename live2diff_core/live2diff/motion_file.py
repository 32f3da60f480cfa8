"""Motion-module files: read them safely, tell what they are, say what is wrong with the others.

Files are told apart by keys and shapes, never by name.
"""

from __future__ import annotations

import logging
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .layout import MotionLayout
from .motion_module import Build, MotionModel

EXPECTED = (
    "Expected a motion module for SD1.5: Live2Diff's live2diff.ckpt, or AnimateDiff's "
    "mm_sd_v14, mm_sd_v15, mm_sd_v15_v2 or v3_sd15_mm (.ckpt, .pth or .safetensors)."
)
_LEVELS = 4
_MODULE_KEY = re.compile(r"^(down_blocks|up_blocks|mid_block)\.(?:(\d+)\.)?motion_modules\.(\d+)\.")

# How torch names what `weights_only` refused: "Unsupported global: GLOBAL os.system was not ...".
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")
# What unpickling damaged bytes has been seen to raise.
_DAMAGED = (
    EOFError,
    RuntimeError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    struct.error,
    zipfile.BadZipFile,
)


class MotionFileError(ValueError):
    """A file that cannot be used as a motion module; the message says why and what would be."""

    def __init__(self, path: Path, problem: str) -> None:
        """Quote the file, name the problem, and say what was expected."""
        super().__init__(f"{path.name}: {problem} {EXPECTED}")


def read_motion_file(path: str | Path) -> tuple[MotionLayout, dict[str, Tensor]]:
    """Read a motion module and find out its layout.

    Args:
        path: a pickle (loaded with `weights_only`, so that no code in it can run) or safetensors;
            with or without a `state_dict` wrapper and a `module.` prefix.

    Returns:
        The layout, and the tensors under the keys of `MotionModel`.

    Raises:
        MotionFileError: not readable, or readable but something else than a motion module.
    """
    path = Path(path)
    tensors = _strip(path, _read_tensors(path))
    _refuse_other_models(path, tensors)
    layout = _layout(path, tensors)
    kept = {
        key: value
        for key, value in tensors.items()
        if _MODULE_KEY.match(key) or key.startswith("flow_conv_in.")
    }
    _check_complete(path, layout, kept)
    dropped = sorted(set(tensors) - set(kept))
    if dropped:
        logging.info("Live2Diff: %s: %d other tensors left out.", path.name, len(dropped))
    return layout, kept


def _read_tensors(path: Path) -> object:
    if not path.is_file():
        raise MotionFileError(path, "there is no such file.")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"PK\x03\x04" or head[:1] == b"\x80":
        return _read_pickle(path, zipped=head[:2] == b"PK")
    if len(head) > 8 and head[8:9] == b"{":
        return _read_safetensors(path)
    raise MotionFileError(
        path,
        f"this is not a file of tensors ({size} bytes). A web page or a pointer file is often "
        "saved in place of a model: download it again.",
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise MotionFileError(
            path, f"the file is truncated or damaged ({error}): download it again."
        ) from error


def _read_pickle(path: Path, zipped: bool) -> object:
    try:
        if zipped and not zipfile.is_zipfile(path):
            raise EOFError("its index is gone")
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        wanted = _FORBIDDEN.search(str(error))
        if wanted:
            raise MotionFileError(
                path,
                "this pickle asks to run code, which a file of weights never needs. It was not "
                f"loaded (it wants {wanted.group(1)}).",
            ) from error
        raise MotionFileError(
            path,
            "the file is damaged, or a pickle of something else than tensors. It was not loaded.",
        ) from error
    except _DAMAGED as error:
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MotionFileError(
            path, f"the file is truncated or damaged ({problem}): download it again."
        ) from error


def _strip(path: Path, content: object) -> dict[str, Tensor]:
    """Unwrap `state_dict` and drop a `module.` prefix."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise MotionFileError(path, f"it holds a {type(content).__name__}, not named tensors.")
    tensors = {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise MotionFileError(path, "it holds no tensors.")
    return tensors


def _refuse_other_models(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Name the kinds of file that people take for a motion module."""

    def has(*parts: str) -> bool:
        return any(part in key for key in tensors for part in parts)

    if has("lora_up", "lora_down", "lora_A.", "lora_B.", "_lora."):
        raise MotionFileError(path, "this is a LoRA. Load it with a LoRA loader.")
    if has("model.diffusion_model.", "first_stage_model.", "cond_stage_model."):
        raise MotionFileError(
            path, "this is a whole checkpoint. Load it with core's Load Checkpoint."
        )
    if has("control_model.", "controlnet_cond_embedding", "input_hint_block"):
        raise MotionFileError(path, "this is a ControlNet. Load it with core's Load ControlNet.")
    if not any(_MODULE_KEY.match(key) for key in tensors):
        some = ", ".join(list(tensors)[:3])
        raise MotionFileError(path, f"it has no motion modules; its tensors begin with {some}.")


def _layout(path: Path, tensors: Mapping[str, Tensor]) -> MotionLayout:
    widths: dict[tuple[str, int, int], int] = {}
    for key, tensor in tensors.items():
        match = _MODULE_KEY.match(key)
        if match and key.endswith("temporal_transformer.proj_in.weight"):
            part, level, index = match.groups()
            widths[part, int(level or 0), int(index)] = tensor.shape[0]
    down, up = (_levels(widths, part) for part in ("down_blocks", "up_blocks"))
    if len(down) == _LEVELS - 1:
        raise MotionFileError(
            path, "this is a motion module for SDXL (its UNet has three levels, SD1.5's has four)."
        )
    shapes = [len(level) for level in (*down, *up)]
    if shapes != [2] * _LEVELS + [3] * _LEVELS:
        raise MotionFileError(
            path, f"it is incomplete: modules per level are {shapes}, not {[2] * 4 + [3] * 4}."
        )
    tables = [t.shape for key, t in tensors.items() if key.endswith("pos_encoder.pe")]
    if len({shape[1] for shape in tables}) != 1:
        raise MotionFileError(path, "its position tables are missing or differ in length.")
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


def _check_complete(path: Path, layout: MotionLayout, tensors: Mapping[str, Tensor]) -> None:
    """Compare keys and shapes with the model that would take them, built without memory."""
    build = Build(torch.float32, torch.device("meta"), nn)
    expected = {key: t.shape for key, t in MotionModel(layout, build).state_dict().items()}
    missing = sorted(set(expected) - set(tensors))
    if missing:
        raise MotionFileError(
            path, f"it is incomplete: {len(missing)} tensors are missing, first {missing[0]}."
        )
    for key, tensor in tensors.items():
        if key not in expected:
            raise MotionFileError(path, f"it has a layer that is not known: {key}.")
        if tensor.shape != expected[key]:
            raise MotionFileError(
                path,
                f"{key} has shape {list(tensor.shape)} where {list(expected[key])} belongs.",
            )
