"""Files of MiDaS DPT-hybrid: read them safely, and say what is wrong with the others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

PUBLISHED_FILES = ("dpt_hybrid_384.pt", "dpt_hybrid-midas-501f0c75.pt")
# The ImageNet classifier that timm's backbone carries along; DPT never calls it.
_UNUSED_PREFIX = "pretrained.model.head."
# First byte of a bare pickle (protocol 2 and up); torch's own files are zips since 1.6.
_PICKLE = b"\x80"
_EXPECTED = (
    f"Expected MiDaS DPT-hybrid: {' or '.join(PUBLISHED_FILES)}, about 490 MB, from the MiDaS "
    "releases."
)
# What a file that is not DPT-hybrid probably is, by a part of one of its keys; first match wins.
_FAMILIES = (
    ("lora_", "a LoRA"),
    ("motion_modules.", "a motion module"),
    ("model.diffusion_model.", "a diffusion checkpoint"),
    ("first_stage_model.", "a diffusion checkpoint"),
    ("depth_head.", "Depth Anything (use the node that comes with it)"),
    ("pretrained.layer1.", "MiDaS v2.1, not DPT-hybrid"),
    ("scratch.", "another MiDaS network, such as DPT-large, BEiT or Swin"),
)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .pt, .pth or .safetensors file; its first bytes say which it is.

    Pickles are read as data only. Wrappers (`state_dict`, `model`) and the prefix `module.` go.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds code, or holds no tensors by name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no depth model at {path}. {_EXPECTED}")
    with path.open("rb") as file:
        head = file.read(16)
    try:
        if head[8:9] == b"{":
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged file can raise almost anything: key, index and type errors, even "invalid
        # argument" from seeking. That it may be opened at all was seen above.
        raise ValueError(_reading_failed(path, head, error)) from error
    return _named_tensors(content, path)


def check_layout(weights: Mapping[str, Tensor], network: nn.Module, path: Path) -> None:
    """Compare names and shapes in a file with the network's.

    Raises:
        ValueError: a tensor is missing or has another shape; says what the file looks like.
    """
    wanted = {
        name: tuple(tensor.shape)
        for name, tensor in network.state_dict().items()
        if not name.startswith(_UNUSED_PREFIX)
    }
    missing = [name for name in wanted if name not in weights]
    changed = [
        f"{name} is {tuple(weights[name].shape)} and should be {shape}"
        for name, shape in wanted.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if not missing and not changed:
        return
    example = changed[0] if changed else f"{missing[0]} is missing"
    raise ValueError(
        f"{path.name} is not MiDaS DPT-hybrid{_family(weights)}: {len(missing)} of {len(wanted)} "
        f"tensors are missing and {len(changed)} have another shape (for example, {example}). "
        f"{_EXPECTED}"
    )


def _named_tensors(content: object, path: Path) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    weights = {}
    if isinstance(content, Mapping):
        weights = {
            str(name).removeprefix("module."): tensor
            for name, tensor in content.items()
            if isinstance(tensor, Tensor)
        }
    if not weights:
        raise ValueError(f"{path.name} holds no tensors by name. {_EXPECTED}")
    return weights


def _family(weights: Mapping[str, Tensor]) -> str:
    for part, family in _FAMILIES:
        if any(part in name for name in weights):
            return f"; it looks like {family}"
    return ""


def _reading_failed(path: Path, head: bytes, error: Exception) -> str:
    """Say what is wrong with a file that could not be read."""
    text = str(error)
    if head.lstrip()[:1] == b"<":
        cause = "is a web page, saved in place of the model"
    elif head.startswith(b"version https://"):
        cause = "is a Git LFS pointer, not the model itself"
    elif "GLOBAL" in text or (head[:1] == _PICKLE and "Unsupported operand" in text):
        cause = "is a pickle with more than tensors in it; such files can run code and are refused"
    else:
        size = path.stat().st_size
        cause = f"cannot be read; at {size:,} bytes it is probably truncated or no model at all"
    logger.debug("Reading %s failed: %s", path, text)
    return f"{path.name} {cause}. Download it again. {_EXPECTED}"
