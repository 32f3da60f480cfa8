"""Whether a stream fits on its device, known before anything is loaded."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import comfy.model_management
import torch

from ..stream.byte_size import format_bytes


class StreamMemoryError(MemoryError):
    """A stream does not fit; the message says what needs how much, and what to do."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a stream needs on its device at one time, by what needs them.

    Attributes:
        stream: KV-caches and feature banks.
        unet: activations of the UNet in its largest call.
        pictures: most activations of VAE and depth, which work in turn with the UNet.
        whole_weights: weights that are loaded as a whole (depth).
        weights: all others, of which the host can keep a part in RAM.
    """

    stream: int
    unet: int = 0
    pictures: int = 0
    whole_weights: int = 0
    weights: int = 0

    @property
    def least(self) -> int:
        """Bytes without which the stream cannot run."""
        return self.stream + max(self.unet, self.pictures) + self.whole_weights

    def __str__(self) -> str:
        """List the parts with their figures."""
        return (
            f"{format_bytes(self.stream)} for the stream's memory (KV-caches, feature banks), "
            f"{format_bytes(self.unet)} for the UNet's activations, {format_bytes(self.pictures)} "
            f"for those of VAE and depth in turn with it, {format_bytes(self.whole_weights)} for "
            f"the depth model and {format_bytes(self.weights)} for other weights"
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
        # Models can be unloaded; the bytes that the host and other programs need cannot.
        limit = management.get_total_memory(device) - management.extra_reserved_memory()
    least = need.least - (need.whole_weights if on_cpu else 0)
    logging.info("Live2Diff: of %s, the stream takes %s.", format_bytes(int(limit)), need)
    if least > limit:
        raise StreamMemoryError(
            f"The stream needs at least {format_bytes(least)}, but {device} has only "
            f"{format_bytes(int(limit))} for it: {need}, of which parts can wait in RAM. Use "
            "smaller frames, fewer denoising steps (lower denoise), a smaller window in 'Configure "
            "Warm-up & KV-Cache' or a shorter queue in 'Apply Feature Bank', cfg 1 (or guidance "
            "'self', which needs no more), TAESD in place of the VAE, or no depth."
        )
    if not on_cpu and need.least + need.weights > limit:
        logging.warning(
            "Live2Diff: %s does not have room for all weights beside the stream, so ComfyUI keeps "
            "a part of them in RAM, which is slower: of %s, it takes %s.",
            device,
            format_bytes(int(limit)),
            need,
        )
