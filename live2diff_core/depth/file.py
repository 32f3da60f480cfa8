"""Read files of MiDaS DPT-hybrid safely; refuse other files with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from ..host.tensor_file import TensorFileError, read_tensors

PUBLISHED_FILES = ("dpt_hybrid_384.pt", "dpt_hybrid-midas-501f0c75.pt")
# The ImageNet classifier of timm's backbone; DPT never calls it.
_UNUSED_PREFIX = "pretrained.model.head."
_EXPECTED = (
    f"Expected MiDaS DPT-hybrid: {' or '.join(PUBLISHED_FILES)}, about 490 MB, from the MiDaS "
    "releases."
)
# The likely kind of a file that is not DPT-hybrid, by a part of one of its keys; first match wins.
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
    """Read the tensors of a file of any model; see `read_tensors`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, holds code, or holds no tensors by name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no depth model at {path}. {_EXPECTED}")
    try:
        return read_tensors(path)
    except TensorFileError as error:
        raise ValueError(
            f"{path.name}, which ends at {path.stat().st_size:,} bytes, cannot be used: {error} "
            f"{_EXPECTED}"
        ) from error


def check_layout(weights: Mapping[str, Tensor], network: nn.Module, path: Path) -> None:
    """Check the names and shapes of `weights`, read from `path`, against those of `network`.

    Raises:
        ValueError: a tensor is missing or has another shape; the message names the likely model.
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


def _family(weights: Mapping[str, Tensor]) -> str:
    for part, family in _FAMILIES:
        if any(part in name for name in weights):
            return f"; it looks like {family}"
    return ""
