"""Prompts as tokens, by the host's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import comfy.sd1_clip
import torch
from torch import Tensor


@lru_cache(1)
def _tokenizer() -> comfy.sd1_clip.SD1Tokenizer:
    return comfy.sd1_clip.SD1Tokenizer()


@lru_cache(4096)
def _encoded(prompt: str) -> tuple[int, ...]:
    chunks = _tokenizer().tokenize_with_weights(prompt)["l"]
    return tuple(token for chunk in chunks for token, _ in chunk)


def tokens(prompts: Sequence[str]) -> Tensor:
    """Turn prompts into tokens, [N, 77] int64; all must be of one length in chunks of 77."""
    return torch.tensor([_encoded(prompt) for prompt in prompts])
