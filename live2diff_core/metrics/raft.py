"""RAFT-large from a file of torchvision's weights. Nothing is ever downloaded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..host.tensor_file import TensorFileError, read_tensors
from .frames import Flow, Picture

# The correlation of all pairs of pixels grows with the square of the area.
MOST_PIXELS = 720 * 720
_LEAST_SIDE, _MULTIPLE = 128, 8
# Measured at 720x720 on the CPU: 650 MB beside the weights; plus a margin.
WORKING_BYTES = 1024**3


class RAFTFlow:
    """Optical flow by RAFT-large; pictures above 720x720 are scaled down for the network.

    Source: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020,
    as torchvision builds it (BSD-3; 12 updates). The network computes where its weights are.
    """

    name = "RAFT-large"

    def __init__(self, network: nn.Module) -> None:
        """Use `network`, from two pictures [1, 3, H, W] in -1..1 to a list of [1, 2, H, W]."""
        self._network = network.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, first: Picture, second: Picture) -> Flow:
        """Estimate the flow from `first` to `second`."""
        height, width = first.shape[:2]
        size = _network_size(height, width)
        device = next(self._network.parameters()).device
        flow = self._network(*(_prepared(each, size, device) for each in (first, second)))[-1]
        flow = interpolate(flow.float(), (height, width), mode="bilinear", align_corners=False)
        scale = torch.tensor([width / size[1], height / size[0]], device=flow.device)
        return (flow[0].permute(1, 2, 0) * scale).cpu().numpy()


def load_raft(path: Path) -> nn.Module:
    """Build RAFT-large with the weights of a file, on the CPU.

    Raises:
        ValueError: the file is damaged, or holds something else.
        ImportError: there is no torchvision.
    """
    try:
        from torchvision.models.optical_flow import raft_large
    except ImportError as error:
        raise ImportError(f"RAFT needs torchvision, which ComfyUI requires ({error}).") from error
    expected = "Expected torchvision's RAFT-large (raft_large_C_T_SKHT_V2-ff5fadd5.pth)."
    try:
        weights = read_tensors(path)
    except TensorFileError as error:
        raise ValueError(f"{path.name} cannot be used: {error} {expected}") from error
    network = raft_large(weights=None, progress=False)
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != wanted:
        raise ValueError(f"{path.name} is not RAFT-large. {expected}")
    network.load_state_dict(weights)
    return network


def find_raft(folders: list[Path]) -> Path | None:
    """Return the first file of RAFT-large in `folders`, by its name."""
    files = (path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir()))
    return next((path for path in files if path.name.startswith("raft_large")), None)


def _network_size(height: int, width: int) -> tuple[int, int]:
    """Return a size near the pictures' that the network takes: multiples of 8, from 128."""
    scale = min(1.0, math.sqrt(MOST_PIXELS / (height * width)))
    sides = (max(_LEAST_SIDE, side * scale) for side in (height, width))
    rows, columns = (max(1, int(side / _MULTIPLE)) * _MULTIPLE for side in sides)
    return rows, columns


def _prepared(picture: Picture, size: tuple[int, int], device: torch.device) -> Tensor:
    image = torch.from_numpy(np.ascontiguousarray(picture)).to(device).permute(2, 0, 1)[None]
    return interpolate(image / 127.5 - 1, size, mode="bilinear", align_corners=False)
