"""Whether a stream fits on its device, known before anything is loaded."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import comfy.model_management
import torch

from ..stream.byte_size import format_bytes


class StreamMemoryError(MemoryError):
    """A stream does not fit; the message says what needs how much, and what to do."""


class Companion(NamedTuple):
    """A model that works beside the UNet.

    Attributes:
        patcher: the host's handle of it.
        working_bytes: bytes that it needs for its activations.
    """

    patcher: Any
    working_bytes: int


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a stream needs on its device at one time, by what needs them.

    Attributes:
        stream: KV-caches and feature banks.
        unet_work: activations of the UNet in its largest call.
        vae_work, depth_work: those of VAE and depth, which work in turn with the UNet.
        depth_weights: loaded as a whole.
        unet_weights, vae_weights: of which the host can keep a part in RAM; the UNet's include
            those of the motion module.
    """

    stream: int
    unet_work: int = 0
    vae_work: int = 0
    depth_work: int = 0
    depth_weights: int = 0
    unet_weights: int = 0
    vae_weights: int = 0

    @property
    def least(self) -> int:
        """Bytes without which the stream cannot run."""
        work = max(self.unet_work, self.vae_work, self.depth_work)
        return self.stream + work + self.depth_weights

    @property
    def all(self) -> int:
        """Bytes with which nothing has to wait in RAM."""
        return self.least + self.unet_weights + self.vae_weights

    def __str__(self) -> str:
        """List the parts with their figures."""
        stream, unet_work, vae_work, depth_work, depth, unet, vae = map(format_bytes, astuple(self))
        return (
            f"{stream} for the stream's memory (KV-caches, feature banks), {depth} for the depth "
            f"model, the largest of {unet_work} (UNet), {vae_work} (VAE) and {depth_work} (depth) "
            f"for activations, and {unet} (UNet) and {vae} (VAE) for weights, of which a part can "
            "wait in RAM"
        )


def memory_need(
    model: Any, companions: Mapping[str, Companion], stream: int, batch: Sequence[int]
) -> MemoryNeed:
    """Add up what a stream needs.

    Args:
        model: ComfyUI's ModelPatcher.
        companions: "vae" and "depth", where there are such.
        stream: bytes of the stream's memory that are yet to be allocated.
        batch: shape of the latents of the largest call.
    """
    sizes = {kind: each.patcher.model_size() for kind, each in companions.items()}
    work = {kind: each.working_bytes for kind, each in companions.items()}
    parts = [model, *model.get_nested_additional_models()]
    return MemoryNeed(
        stream,
        unet_work=int(model.model.memory_required(batch)),
        vae_work=work.get("vae", 0),
        depth_work=work.get("depth", 0),
        depth_weights=sizes.get("depth", 0),
        unet_weights=sum(part.model_size() for part in parts),
        vae_weights=sizes.get("vae", 0),
    )


def check_memory(need: MemoryNeed, device: torch.device) -> None:
    """Log what a stream needs and refuse what cannot fit.

    Raises:
        StreamMemoryError: `device` has less than the least that is needed.
    """
    management = comfy.model_management
    on_cpu = management.is_device_cpu(device)
    if on_cpu:
        # The weights lie there already.
        limit = management.get_free_memory(device)
    else:
        # Other models can be unloaded; the bytes that the host keeps free cannot be used.
        limit = management.get_total_memory(device) - management.extra_reserved_memory()
    least = need.least - (need.depth_weights if on_cpu else 0)
    logging.info(
        "Live2Diff: the stream's memory takes %s of %s; all of it: %s.",
        format_bytes(need.stream),
        format_bytes(int(limit)),
        need,
    )
    if least > limit:
        raise StreamMemoryError(
            f"The stream needs at least {format_bytes(least)}, but {device} has only "
            f"{format_bytes(int(limit))} for it: {need}. Use "
            "smaller frames, fewer denoising steps (lower denoise), a smaller window in 'Configure "
            "Warm-up & KV-Cache' or a shorter queue in 'Apply Feature Bank', cfg 1 (or guidance "
            "'self', which needs no more), TAESD in place of the VAE, or no depth."
        )
    if not on_cpu and need.all > limit:
        logging.warning(
            "Live2Diff: %s does not have room for all weights beside the stream, so ComfyUI keeps "
            "a part of them in RAM, which is slower: of %s, it takes %s.",
            device,
            format_bytes(int(limit)),
            need,
        )
