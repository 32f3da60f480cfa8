"""Motion-module files, as Load Motion Module reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from live2diff_core.live2diff.motion_module import MotionModel
from live2diff_core.run.state_file import write_tensors


def write_motion_module(
    path: Path, motion: MotionModel, mean: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    """Write a motion module, whole or not at all.

    Args:
        path: a .safetensors file, in a folder that exists.
        motion: the module.
        mean: parameters that are written in place of the module's own; may be empty.
        dtype: of the weights. Position tables stay float32.
    """
    parameters = dict(motion.named_parameters())
    tensors = {
        name: (mean.get(name, value).detach().to("cpu", dtype) if name in parameters else value)
        for name, value in motion.state_dict().items()
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_tensors(path, tensors, {"format": "pt"})
