"""Networks under ComfyUI's memory management, to measure with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.model_management

from ..depth.model import DepthModel
from ..host.whole_patcher import whole_patcher
from .flow import FlowEstimator
from .frames import Flow, Picture
from .raft import WORKING_BYTES, RAFTFlow, load_raft


class HostRAFT:
    """RAFT-large, loaded by the host for every pair, since other networks may need the room."""

    name = RAFTFlow.name

    def __init__(self, path: Path) -> None:
        """Load the weights of a file.

        Raises:
            ValueError: the file is damaged, or holds something else.
        """
        management = comfy.model_management
        network = load_raft(path)
        self._patcher = whole_patcher(
            network, management.get_torch_device(), management.unet_offload_device()
        )
        self._flow: FlowEstimator = RAFTFlow(network)

    def __call__(self, first: Picture, second: Picture) -> Flow:
        """Estimate the flow from `first` to `second`."""
        comfy.model_management.load_models_gpu([self._patcher], memory_required=WORKING_BYTES)
        return self._flow(first, second)


def load_depth(path: Path) -> DepthModel:
    """Load MiDaS DPT-hybrid; errors as of `DepthModel.from_file`."""
    return DepthModel.from_file(path)


def load_clip_vision(path: Path) -> Any:
    """Load a CLIP_VISION.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is another model.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no CLIP vision model at {path}.")
    model = comfy.clip_vision.load(str(path))
    if model is None:
        raise ValueError(f"{path.name} is no CLIP vision model that this ComfyUI knows.")
    return model
