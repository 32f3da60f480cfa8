"""The motion module that a run starts from: a file's, or one that changes nothing yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import comfy.ops
import torch
from torch import Tensor, nn

from live2diff_core.host.sd15 import sd15_unet
from live2diff_core.live2diff.layout import MotionLayout
from live2diff_core.live2diff.motion_file import read_motion_file
from live2diff_core.live2diff.motion_module import (
    Build,
    MotionModel,
    PositionEncoder,
    TemporalTransformer,
)

from .config import TrainingConfig

_CPU = torch.device("cpu")


def initial_motion_model(config: TrainingConfig, model: Any) -> MotionModel:
    """Make the motion module of a run, float32 on the CPU, ready for gradients.

    From nothing, its last projections are zero, so that the UNet at first does what it did without
    it (as AnimateDiff's do). A depth mapping network that the file lacks ends in a layer of zeros
    (Live2Diff, section 3.5).

    Args:
        config: where to start, and whether depth is trained.
        model: ComfyUI's ModelPatcher of SD1.5.

    Raises:
        MotionFileError: `start_from` is no motion module.
        ValueError: the window is longer than its position table.
        UnsupportedModelError: the model is not SD1.5.
    """
    unet = sd15_unet(model)
    if config.start_from is None:
        layout = _layout(unet, config.positions)
        tensors: dict[str, Tensor] = {}
    else:
        layout, tensors = read_motion_file(Path(config.start_from))
        config.window.check_positions(layout.positions)
    if not config.depth:
        tensors = {key: value for key, value in tensors.items() if not _of_depth(key)}
    channels = unet.input_blocks[0][0].weight.shape[0] if config.depth else None
    layout = replace(layout, depth_channels=channels)
    tensors = {**_untrained(layout, config.seed), **_floats(tensors)}
    made = MotionModel.from_tensors(
        layout, tensors, Build(torch.float32, _CPU, comfy.ops.manual_cast)
    )
    return made.requires_grad_(True)


def _of_depth(key: str) -> bool:
    return key.startswith("flow_conv_in.")


def _floats(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() for name, tensor in tensors.items()}


def _layout(unet: Any, positions: int) -> MotionLayout:
    """Read the widths of a UNet's blocks: two per level on the way down, three on the way up."""

    def widths(blocks: Any) -> list[int]:
        residual = (layer for block in blocks for layer in block)
        return [r.out_channels for r in residual if isinstance(r, host_unet.ResBlock)]

    def levels(found: list[int], size: int) -> tuple[tuple[int, ...], ...]:
        return tuple(tuple(found[i : i + size]) for i in range(0, len(found), size))

    return MotionLayout(
        down=levels(widths(unet.input_blocks), 2),
        up=levels(widths(unet.output_blocks), 3),
        mid=None,
        positions=positions,
        depth_channels=None,
    )


def _untrained(layout: MotionLayout, seed: int) -> dict[str, Tensor]:
    """Draw all weights by torch's own rules; zero those that must not change anything."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MotionModel(layout, Build(torch.float32, _CPU, nn))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, TemporalTransformer):
                _zero(module.proj_out)
            if isinstance(module, PositionEncoder):
                module.pe.copy_(sinusoids(module.pe.shape[1], module.pe.shape[2]))
        if layout.depth_channels is not None:
            _zero(model.flow_conv_in.conv_out)
    return model.state_dict()


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()


def sinusoids(positions: int, channels: int) -> Tensor:
    """Compute the position table: [1, P, C], sine and cosine in turn (Vaswani et al., 3.5)."""
    place = torch.arange(positions, dtype=torch.float64)[:, None]
    rate = 10_000.0 ** (-torch.arange(0, channels, 2, dtype=torch.float64) / channels)
    angles = place * rate
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None].float()
