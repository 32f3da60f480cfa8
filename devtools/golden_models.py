"""SD1.5 and its motion module with random weights, made on the device: for times, not pictures."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

# As ComfyUI infers it from SD1.5's checkpoint.
UNET = {
    "use_checkpoint": False,
    "image_size": 32,
    "use_spatial_transformer": True,
    "legacy": False,
    "adm_in_channels": None,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2],
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "channel_mult": [1, 2, 4, 4],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "context_dim": 768,
    "use_temporal_resblock": False,
    "use_temporal_attention": False,
    "num_heads": 8,
    "num_head_channels": -1,
}


def random_sd15(device: str, dtype: Any, width: int = 320) -> Any:
    """Build a ModelPatcher of SD1.5; `width` below 320 makes it narrower, at the same layers."""
    import comfy.model_patcher
    import comfy.supported_models
    import torch

    where = torch.device(device)
    config = comfy.supported_models.SD15({**UNET, "model_channels": width})
    config.set_inference_dtype(dtype, None)
    model = config.get_model({}, "", device=where)
    _draw(model.diffusion_model)
    # The host loads it, as it loads any other.
    model.to("cpu")
    return comfy.model_patcher.CoreModelPatcher(
        model, load_device=where, offload_device=torch.device("cpu")
    )


def random_motion(engine: SimpleNamespace, device: str, dtype: Any, width: int = 320) -> Any:
    """Build Live2Diff's motion module for such a UNet, without its depth encoder."""
    import comfy.model_patcher
    import comfy.ops
    import torch

    layout_module, modules = (
        importlib.import_module(f"{engine.live2diff_patch.__package__}.{name}")
        for name in ("layout", "motion_module")
    )
    levels = tuple(width * wider for wider in UNET["channel_mult"])
    layout = layout_module.MotionLayout(
        down=tuple((channels,) * 2 for channels in levels),
        up=tuple((channels,) * 3 for channels in reversed(levels)),
        mid=None,
        positions=24,
        depth_channels=None,
    )
    where = torch.device(device)
    build = modules.Build(dtype, where, comfy.ops.manual_cast)
    model = modules.MotionModel(layout, build).eval().requires_grad_(False)
    _draw(model)
    model.to("cpu")
    patcher = comfy.model_patcher.CoreModelPatcher(
        model, load_device=where, offload_device=torch.device("cpu")
    )
    return engine.live2diff_patch.LoadedMotionModule("random", layout, patcher)


def _draw(module: Any) -> None:
    """Draw all weights of a module, small enough that float16 does not overflow."""
    import torch

    generators: dict[Any, Any] = {}
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            generator = generators.setdefault(
                tensor.device, torch.Generator(tensor.device).manual_seed(0)
            )
            tensor.normal_(0.0, 0.02, generator=generator)
