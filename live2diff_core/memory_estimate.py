"""How much memory a stream's KV-caches take: known before the run, to the byte."""

from __future__ import annotations

import math
from collections.abc import Sequence


def kv_cache_bytes(
    down: Sequence[Sequence[int]],
    up: Sequence[Sequence[int]],
    mid: int | None,
    latent_size: tuple[int, int],
    slots: int,
    denoising_steps: int = 1,
    conditionings: int = 1,
    bytes_per_value: int = 2,
    attentions: int = 2,
) -> int:
    """Add up the caches of all temporal attentions (Live2Diff, appendix A.2: [T, HW, L, C] twice).

    Args:
        down, up, mid: channels of every motion module, by UNet level.
        latent_size: (h, w), an eighth of the frame's height and width.
        slots: L, frames in the window.
        denoising_steps: T.
        conditionings: 1, or more with guidance or several prompts at once.
        bytes_per_value: 2 in float16 and bfloat16, 4 in float32.
        attentions: temporal attentions per module.

    Returns:
        Bytes. SD1.5 at 512x512 in float16 with 16 slots: 1.52e9 per denoising step.
    """
    deepest = len(down) - 1
    values = sum(tokens(latent_size, n) * sum(level) for n, level in enumerate(down))
    values += sum(tokens(latent_size, deepest - n) * sum(level) for n, level in enumerate(up))
    if mid is not None:
        values += tokens(latent_size, deepest) * mid
    keys_and_values = 2 * attentions * slots * values
    return keys_and_values * denoising_steps * conditionings * bytes_per_value


def tokens(latent_size: tuple[int, int], level: int) -> int:
    """HW of a UNet level; each downsampler halves and rounds up."""
    height, width = latent_size
    return math.ceil(height / 2**level) * math.ceil(width / 2**level)


def format_bytes(count: int) -> str:
    """Write a size for people: '1.52 GB'."""
    if count >= 1e9:
        return f"{count / 1e9:.2f} GB"
    return f"{count / 1e6:.1f} MB"
