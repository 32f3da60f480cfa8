"""One step at SD1.5's full widths with random weights, and the memory of the whole run."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import comfy.patcher_extension
import torch
from torch import Tensor, nn

from devtools.golden_models import random_sd15

from .config import TrainingConfig
from .initial import initial_motion_model
from .loop import TrainingError, make_optimizer
from .trainee import Trainee
from .windows import Batch

# Sides of the latents that are computed, in latent pixels; memory grows with their area.
_SIZES = ((8, 8), (8, 16))
_GIB = 1024**3


@dataclass(frozen=True)
class Kept:
    """Bytes kept for the backward pass.

    Attributes:
        whole: of everything.
        largest_block: of the UNet's block that keeps most.
    """

    whole: int
    largest_block: int


def dry_run(config: TrainingConfig, channels: int = 320) -> str:
    """Make one step with random weights and frames, on small frames where there is no GPU.

    Args:
        config: the run; its checkpoint, videos and start are not used.
        channels: width of the UNet's first layer: 320 in SD1.5.

    Returns:
        A report, several lines.

    Raises:
        TrainingError: the loss is not finite, a motion parameter has no gradient, or the UNet has.
    """
    start = time.perf_counter()
    config = replace(config, start_from=None, batch_size=1, effective_batch=1)
    model = random_sd15("cpu", getattr(torch, config.dtype), channels)
    motion = _awake(initial_motion_model(config, model))
    kept = {}
    for recompute in (False, True):
        trainee = Trainee(replace(config, gradient_checkpointing=recompute), model, motion)
        trainee.window_model.load()
        kept[recompute] = [_kept(trainee, model, _batch(config, size)) for size in _SIZES]
    loss = _step(config, trainee, _batch(config, _SIZES[0]))
    _check(loss, motion, model.model.diffusion_model)
    seconds = time.perf_counter() - start
    return _report(config, loss, seconds, model, motion, kept)


def _awake(motion: nn.Module) -> Any:
    """Replace the zeros that a module starts with, behind which nothing has a gradient."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in motion.parameters():
            if not weight.any():
                weight.normal_(0.0, 0.02, generator=generator)
    return motion


def _batch(config: TrainingConfig, size: tuple[int, int]) -> Batch:
    generator = torch.Generator().manual_seed(config.seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    shape = (1, config.window_size, 4, *size)
    target, noise = random(*shape), random(*shape)
    depth = random(*shape) if config.depth else None
    text = random(1, 77, 768)
    return Batch(target, target, noise, torch.tensor([500]), text, depth)


def _kept(trainee: Trainee, model: Any, batch: Batch) -> Kept:
    """Run forward alone, and count what is kept, weights aside."""
    weights = (*trainee.parameters(), *model.model.parameters())
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    by_block: dict[Any, int] = defaultdict(int)
    held: list[Tensor] = []
    options: dict[str, Any] = {}

    def look(executor: Any, *args: Any, **kwargs: Any) -> Any:
        options["now"] = kwargs.get("transformer_options") or args[5]
        return executor(*args, **kwargs)

    def pack(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in known:
            known.add(place)
            held.append(tensor)
            by_block[options.get("now", {}).get("block")] += tensor.untyped_storage().nbytes()
        return tensor

    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    with trainee.window_model.wrapped(kind, look):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            trainee(batch)
    return Kept(sum(by_block.values()), max(by_block.values()))


def _step(config: TrainingConfig, trainee: Trainee, batch: Batch) -> float:
    """Make one step of the optimizer; the gradients stay."""
    optimizer = make_optimizer(config, list(trainee.motion.parameters()))
    loss = trainee(batch)
    loss.backward()
    optimizer.step()
    return loss.item()


def _check(loss: float, motion: nn.Module, unet: nn.Module) -> None:
    if not math.isfinite(loss):
        raise TrainingError(f"The loss is {loss}.")
    lacking = [n for n, p in motion.named_parameters() if p.grad is None or not p.grad.any()]
    if lacking:
        raise TrainingError(f"{len(lacking)} motion parameters have no gradient: {lacking[0]} …")
    if any(p.requires_grad or p.grad is not None for p in unet.parameters()):
        raise TrainingError("A weight of the UNet has a gradient.")


def _report(
    config: TrainingConfig,
    loss: float,
    seconds: float,
    model: Any,
    motion: nn.Module,
    kept: dict[bool, list[Kept]],
) -> str:
    trained = sum(p.numel() for p in motion.parameters())
    unet = list(model.model.diffusion_model.parameters())
    count = len(list(motion.parameters()))
    bytes_of = {
        f"UNet, {config.dtype}": sum(p.nbytes for p in unet),
        "motion module, float32": 4 * trained,
        "gradients, float32": 4 * trained,
        "Adam, float32": 8 * trained,
    }
    if config.ema_decay:
        bytes_of["mean of the weights, float32"] = 4 * trained
    plain = _at(config, kept[False], "whole")
    again = _at(config, kept[True], "whole") + _at(config, kept[False], "largest_block")
    fixed = sum(bytes_of.values())
    height, width = _SIZES[0]
    lines = [
        f"One step at {width * 8}x{height * 8}, {config.window_size} frames, random weights: loss "
        f"{loss:.4f}; all {count} motion parameters ({trained:,} numbers) have gradients, none of "
        f"the UNet ({sum(p.numel() for p in unet):,} numbers) has; {seconds:.0f} s in all.",
        f"Predicted for one window of {config.window_size} frames at {config.width}x"
        f"{config.height} on one device (more windows take so many times the activations):",
        *(f"  {size / _GIB:7.2f} GiB  {name}" for name, size in bytes_of.items()),
        f"  {plain / _GIB:7.2f} GiB  activations without gradient_checkpointing",
        f"  {again / _GIB:7.2f} GiB  activations with it",
        f"  {(fixed + plain) / _GIB:7.2f} GiB  together without",
        f"  {(fixed + again) / _GIB:7.2f} GiB  together with",
    ]
    return "\n".join(lines) + "\n"


def _at(config: TrainingConfig, kept: list[Kept], name: str) -> float:
    """Extrapolate bytes from the two sizes to the configured one: a part grows with the area."""
    small, large = (getattr(each, name) for each in kept)
    areas = [height * width for height, width in _SIZES]
    slope = (large - small) / (areas[1] - areas[0])
    return small + slope * (config.width * config.height // 64 - areas[0])
