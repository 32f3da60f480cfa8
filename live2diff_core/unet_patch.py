"""Puts motion modules into ComfyUI's SD1.5 UNet for the time of a forward pass, and takes them out.

Scoped insertion leaves the host's model as it was between calls, so LoRAs keep finding their
layers, clones share nothing they could break, and an exception leaves nothing behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import comfy.ldm.modules.attention as host_attention
import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import torch
from torch import Tensor, nn

from .checkpoint import read_motion_file
from .config import StreamConfig
from .motion_module import Build, MotionLayout, MotionModel, MotionModule
from .sd15_model import UnsupportedModelError, linear_beta_sampling, sd15_unet

KEY = "live2diff"
CACHE_NAMES = "live2diff_cache_names"


@dataclass(frozen=True)
class LoadedMotionModule:
    """A motion module under the host's memory management.

    Attributes:
        name: file name, for messages.
        layout: its sizes.
        patcher: the host's handle on the weights.
    """

    name: str
    layout: MotionLayout
    patcher: Any

    @property
    def model(self) -> MotionModel:
        """The modules themselves."""
        return self.patcher.model


@dataclass(frozen=True)
class StepContext:
    """What travels in `transformer_options` with a call of the patched UNet.

    Attributes:
        plan: the engine's StepPlan.
        conditioning: name of each of the host's conditionings, by its uuid.
        offsets: (y, x) of conditionings that cover a part of the picture, by uuid.
        passes: how often each conditioning has run in this call.
    """

    plan: Any
    conditioning: dict[Any, str]
    offsets: dict[Any, tuple[int, int]]
    passes: Counter = field(default_factory=Counter)

    def cache_names(self, uuids: Sequence[Any]) -> list[str]:
        """Name whose caches a forward pass of these conditionings uses.

        Guidance such as PAG runs a conditioning again, on a changed UNet: such a pass must neither
        see nor overwrite what the first one remembers.
        """
        self.passes.update(uuids)
        return [f"{self.conditioning[u]}.pass{self.passes[u] - 1}" for u in uuids]


def load_motion_module(path: str) -> LoadedMotionModule:
    """Load a motion-module file for the host's device.

    Raises:
        MotionFileError: see `read_motion_file`.
    """
    layout, tensors = read_motion_file(path)
    parameters = sum(tensor.numel() for tensor in tensors.values())
    device = comfy.model_management.get_torch_device()
    offload = comfy.model_management.unet_offload_device()
    dtype = comfy.model_management.unet_dtype(device=device, model_params=parameters)
    # manual_cast follows the UNet's type, whatever each of the two is stored in.
    build = Build(dtype, offload, comfy.ops.manual_cast)
    model = MotionModel.from_tensors(layout, tensors, build)
    patcher = comfy.model_patcher.CoreModelPatcher(
        model, load_device=device, offload_device=offload
    )
    return LoadedMotionModule(str(path).replace("\\", "/").rsplit("/", 1)[-1], layout, patcher)


def apply_live2diff(model: Any, motion: LoadedMotionModule, config: StreamConfig) -> Any:
    """Return a clone of ComfyUI's `model` whose UNet carries the motion modules.

    The clone samples with the betas motion modules are trained on, linear in beta.

    Args:
        model: a ModelPatcher of SD1.5.
        motion: the motion module.
        config: attention window.

    Raises:
        UnsupportedModelError: not SD1.5, an inpainting variant, or other widths than the module's.
        ValueError: a window longer than the module's position table.
    """
    config.check_positions(motion.layout.positions)
    unet = sd15_unet(model)
    insertion_points(unet, motion)
    if applied_motion(model) is not None:
        raise UnsupportedModelError(
            "This MODEL already carries a Live2Diff motion module. Connect the MODEL from before "
            "the other 'Apply Live2Diff'."
        )
    patched = model.clone()
    patched.add_object_patch("model_sampling", linear_beta_sampling(model))
    patched.set_additional_models(KEY, [motion.patcher])
    patched.set_attachments(KEY, AppliedMotion(motion, config))
    patched.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, KEY, ScopedInsertion(motion)
    )
    patched.set_model_forward_timestep_embed_patch((MotionModule, _run_motion_module))
    patched.set_model_input_block_patch(_add_depth)
    return patched


@dataclass(frozen=True)
class AppliedMotion:
    """What a patched MODEL says of itself."""

    motion: LoadedMotionModule
    config: StreamConfig


def applied_motion(model: Any) -> AppliedMotion | None:
    """Find what Live2Diff put on `model`; None for a plain MODEL."""
    return model.get_attachment(KEY)


def check_depth(model: Any) -> LoadedMotionModule:
    """Get the motion module that reads depth for `model`.

    Raises:
        UnsupportedModelError: no motion module, or one without a depth encoder.
    """
    applied = applied_motion(model)
    if applied is None:
        raise UnsupportedModelError(
            "depth is connected, but this MODEL has no motion module to read it with. Put 'Apply "
            "Live2Diff' before the Stream Sampler, or disconnect depth."
        )
    if applied.motion.layout.depth_channels is None:
        raise UnsupportedModelError(
            f"depth is connected, but {applied.motion.name} has no depth encoder (AnimateDiff's "
            "motion modules have none). Load live2diff.ckpt, or disconnect depth."
        )
    return applied.motion


@dataclass(frozen=True)
class InsertionPoint:
    """A motion module's place: right behind layer `index - 1` of `block`."""

    block: nn.Sequential
    index: int
    module: MotionModule


def insertion_points(unet: Any, motion: LoadedMotionModule) -> list[InsertionPoint]:
    """Find where each motion module goes.

    After the last spatial transformer of a block, or after its residual block where a level has no
    transformer; so always ahead of an upsampler.

    Raises:
        UnsupportedModelError: number or width of the blocks is not what the modules have.
    """
    model = motion.model
    down = [block for block in unet.input_blocks if _residual(block) is not None]
    blocks = [*down, unet.middle_block] if motion.layout.mid is not None else down
    blocks = [*blocks, *unet.output_blocks]
    levels = [*model.down_blocks]
    if motion.layout.mid is not None:
        levels.append(model.mid_block)
    modules = [m for level in (*levels, *model.up_blocks) for m in level.motion_modules]
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
    """First residual block of a UNet block; None in the first convolution and downsamplers."""
    return next((layer for layer in block if isinstance(layer, host_unet.ResBlock)), None)


def _insertion_index(block: nn.Sequential) -> int:
    transformers = [
        i for i, layer in enumerate(block) if isinstance(layer, host_attention.SpatialTransformer)
    ]
    return transformers[-1] + 1 if transformers else 1


@dataclass(frozen=True)
class ScopedInsertion:
    """A DIFFUSION_MODEL wrapper: the modules are in the UNet while it runs, and only then."""

    motion: LoadedMotionModule

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """Insert, run, take out, whatever happens."""
        options = _transformer_options(args, kwargs)
        options[CACHE_NAMES] = step_context(options).cache_names(options["uuids"])
        # The host may run another instance of the UNet than it had when the patch was applied.
        points = insertion_points(executor.class_obj, self.motion)
        with ExitStack() as stack:
            for target in points:
                target.block.insert(target.index, target.module)
                stack.callback(target.block.pop, target.index)
            return executor(*args, **kwargs)


def _transformer_options(args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    # UNetModel.forward passes it in sixth place.
    return kwargs.get("transformer_options") or args[5]


def step_context(transformer_options: dict[str, Any]) -> StepContext:
    """Find the call's StepContext.

    Raises:
        RuntimeError: there is none, so something else than the Stream Sampler runs the model.
    """
    context = transformer_options.get(KEY)
    if context is None:
        raise RuntimeError(
            "This MODEL comes from 'Apply Live2Diff' and needs its stream's KV-cache, which this "
            "sampler does not have. Sample it with the node 'Stream Sampler' (category Live2Diff), "
            "or connect the MODEL from before 'Apply Live2Diff'."
        )
    return context


def _run_motion_module(
    module: MotionModule, x: Tensor, emb: Any, context: Any, transformer_options: dict, *_: Any
) -> Tensor:
    """Call a motion module where the host's UNet reaches it (a forward_timestep_embed_patch)."""
    memory = step_context(transformer_options).plan.memory
    return module(x, memory, transformer_options[CACHE_NAMES])


def _add_depth(h: Tensor, transformer_options: dict) -> Tensor:
    """Add the depth features after the first convolution (an input_block_patch)."""
    context = transformer_options.get(KEY)
    if transformer_options["block"] != ("input", 0) or context is None:
        return h
    if context.plan.depth is None:
        return h
    depth = context.plan.depth.to(h)
    height, width = h.shape[2:]
    parts = []
    for uuid in transformer_options["uuids"]:
        y, x = context.offsets.get(uuid, (0, 0))
        parts.append(depth[:, :, y : y + height, x : x + width])
    return h + torch.cat(parts)
