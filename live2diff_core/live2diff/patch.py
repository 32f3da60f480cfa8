"""Applies a motion module to a MODEL: its modules are in the UNet only during a forward pass.

Between calls the host's model is unchanged, so LoRAs find their layers, clones cannot break what
they share, and an exception leaves no modules behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import torch
from torch import Tensor, nn

from ..host.call_context import PASSES, call_context
from ..host.identity import weights_identity
from ..host.sd15 import (
    LinearBetaSampling,
    UnsupportedModelError,
    linear_beta_sampling,
    sd15_unet,
)
from ..stream.call_plan import OpenedShape
from ..stream.memory import StreamShape, add_memory, applied_memories
from .layout import MotionLayout
from .memory import MotionMemory
from .motion_file import read_motion_file
from .motion_module import Build, MotionModel, MotionModule
from .window import AttentionWindow

NAME = "live2diff"
TITLE = "Apply Live2Diff"


@dataclass(frozen=True)
class LoadedMotionModule:
    """A motion module under the host's memory management.

    Attributes:
        name: file name, for messages.
        layout: its sizes.
        patcher: the host's ModelPatcher of the weights.
    """

    name: str
    layout: MotionLayout
    patcher: Any

    @property
    def model(self) -> MotionModel:
        """The network itself."""
        return self.patcher.model


def load_motion_module(path: str) -> LoadedMotionModule:
    """Load a motion-module file for the host's device.

    Raises:
        MotionFileError: from `read_motion_file`.
    """
    layout, tensors = read_motion_file(path)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(device=device, model_params=parameters)
    # manual_cast computes in the UNet's dtype, whatever the dtypes of the stored weights are.
    build = Build(dtype, offload, comfy.ops.manual_cast)
    model = MotionModel.from_tensors(layout, tensors, build)
    patcher = comfy.model_patcher.CoreModelPatcher(
        model, load_device=device, offload_device=offload
    )
    return LoadedMotionModule(Path(path).name, layout, patcher)


def apply_live2diff(model: Any, motion: LoadedMotionModule, window: AttentionWindow) -> Any:
    """Return a clone of ComfyUI's `model` that carries a motion module.

    The clone uses the noise schedule that motion modules are trained with.

    Args:
        model: a ModelPatcher of SD1.5.
        motion: the motion module.
        window: the attention window.

    Raises:
        UnsupportedModelError: the model is not SD1.5, is an inpainting variant, has other widths
            than the motion module, or carries one already.
        ValueError: the window is longer than the motion module's position table.
    """
    window.check_positions(motion.layout.positions)
    unet = sd15_unet(model)
    insertion_points(unet, motion)
    if NAME in applied_memories(model):
        raise UnsupportedModelError(
            "This MODEL already carries a Live2Diff motion module. Connect the MODEL from before "
            "the other 'Apply Live2Diff'."
        )
    patched = model.clone()
    patched.add_object_patch("model_sampling", linear_beta_sampling(model))
    patched.set_additional_models(NAME, [motion.patcher])
    add_memory(patched, AppliedMotion(motion, window))
    patched.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, NAME, ScopedInsertion(motion)
    )
    patched.set_model_forward_timestep_embed_patch((MotionModule, _run_motion_module))
    patched.set_model_input_block_patch(_add_depth)
    return patched


@dataclass(frozen=True)
class AppliedMotion:
    """A motion module on a MODEL (see `AppliedMemory`)."""

    motion: LoadedMotionModule
    window: AttentionWindow
    name: str = NAME
    title: str = TITLE

    @property
    def largest_group(self) -> int:
        """The largest number of frames in a group: a whole window in the chunked modes."""
        return self.window.window_size

    @property
    def depth_encoder(self) -> Callable[[Tensor], Tensor] | None:
        """The mapping network, see `DepthEncoder`; AnimateDiff's modules have none."""
        return getattr(self.motion.model, "flow_conv_in", None)

    def start(self, steps: Mapping[str, int], seed: int) -> MotionMemory:
        """Create a stream's memory; nothing in it is random."""
        return MotionMemory(self.window, steps, self.motion.layout.attention_sizes())

    def open(self, memory: MotionMemory, shape: OpenedShape) -> None:
        """Allocate a stream's KV-caches, and project the position tables."""
        model = self.motion.model
        memory.open(shape, lambda: model.position_tables(shape.dtype, shape.device))

    def nbytes(self, shape: StreamShape) -> int:
        """Sum the bytes of a stream's KV-caches."""
        return self.motion.layout.cache_bytes(shape, self.window.window_size)

    def check(self, model: Any) -> None:
        """Refuse a MODEL whose noise schedule has been replaced.

        Raises:
            UnsupportedModelError: a later node replaced the noise schedule.
        """
        if not isinstance(model.get_model_object("model_sampling"), LinearBetaSampling):
            raise UnsupportedModelError(
                "The noise schedule that 'Apply Live2Diff' set was replaced by a later node (such "
                "as ModelSamplingDiscrete). Remove that node, or put it before 'Apply Live2Diff'."
            )

    def fingerprint(self) -> dict[str, str]:
        """Identify the motion module by its weights, and the window by its attributes."""
        return {
            "motion module": weights_identity(self.motion.model, "", self.motion.patcher.backup),
            "window size": str(self.window.window_size),
            "warm-up frames": str(self.window.warmup_frames),
            "attention mode": self.window.attention_mode.value,
        }


@dataclass(frozen=True)
class InsertionPoint:
    """The place of a motion module: in `block`, before its layer `index`."""

    block: nn.Sequential
    index: int
    module: MotionModule


def insertion_points(unet: Any, motion: LoadedMotionModule) -> list[InsertionPoint]:
    """Find the place of each motion module.

    A module follows the last spatial transformer of its block, or the residual block where a level
    has no transformer; it therefore always precedes an upsampler.

    Raises:
        UnsupportedModelError: the UNet has another number of blocks than there are modules, or
            other widths.
    """
    model, down = motion.model, [b for b in unet.input_blocks if _residual(b) is not None]
    middle = [(unet.middle_block, model.mid_block)] if motion.layout.mid is not None else []
    blocks = [*down, *(block for block, _ in middle), *unet.output_blocks]
    levels = [*model.down_blocks, *(level for _, level in middle), *model.up_blocks]
    modules = [module for level in levels for module in level.motion_modules]
    widths = [_residual(block).out_channels for block in blocks]
    if widths != [module.channels for module in modules]:
        raise UnsupportedModelError(
            f"The motion module {motion.name} has widths {[m.channels for m in modules]}, but this "
            f"MODEL's blocks have {widths}. They do not belong together: use an SD1.5 checkpoint "
            "with an SD1.5 motion module."
        )
    if motion.layout.depth_channels not in (None, unet.input_blocks[0][0].weight.shape[0]):
        raise UnsupportedModelError(
            f"The depth encoder of {motion.name} ends in {motion.layout.depth_channels} channels, "
            f"but this MODEL starts with {unet.input_blocks[0][0].weight.shape[0]}."
        )
    return [
        InsertionPoint(block, _insertion_index(block), module)
        for block, module in zip(blocks, modules, strict=True)
    ]


def _residual(block: nn.Sequential) -> Any:
    """Return a block's first residual block; the first convolution and downsamplers have none."""
    return next((layer for layer in block if isinstance(layer, host_unet.ResBlock)), None)


def _insertion_index(block: nn.Sequential) -> int:
    transformers = [
        i for i, layer in enumerate(block) if isinstance(layer, host_attention.SpatialTransformer)
    ]
    return transformers[-1] + 1 if transformers else 1


@dataclass(frozen=True)
class ScopedInsertion:
    """Keeps the motion modules in the UNet while it runs (a DIFFUSION_MODEL wrapper)."""

    motion: LoadedMotionModule

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the UNet with the modules, and always remove them afterwards."""
        # The host may run another instance of the UNet than the one at the time of the patch.
        points = insertion_points(executor.class_obj, self.motion)
        with ExitStack() as stack:
            for point in points:
                point.block.insert(point.index, point.module)
                stack.callback(point.block.pop, point.index)
            return executor(*args, **kwargs)


def _run_motion_module(
    module: MotionModule, x: Tensor, emb: Any, context: Any, transformer_options: dict, *_: Any
) -> Tensor:
    """Run a motion module when the host's UNet reaches it (a forward_timestep_embed_patch)."""
    call = call_context(transformer_options, TITLE).plan.memory[NAME]
    return module(x, call, transformer_options[PASSES])


def _add_depth(h: Tensor, transformer_options: dict) -> Tensor:
    """Add the depth features to the first convolution's output (an input_block_patch)."""
    if transformer_options["block"] != ("input", 0):
        return h
    context = call_context(transformer_options, TITLE)
    if context.plan.depth is None:
        return h
    depth = context.plan.depth.to(h)
    height, width = h.shape[2:]
    parts = []
    for uuid in transformer_options["uuids"]:
        y, x = context.conditionings.offsets[uuid]
        parts.append(depth[:, :, y : y + height, x : x + width])
    return h + torch.cat(parts)
