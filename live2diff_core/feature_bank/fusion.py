"""How an attention's output is fused with a bank's (StreamV2V, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

# The most similarities of several rows that are computed together; a single row may need more.
_TOGETHER = 1 << 22


def fuse(features: Tensor, bank: Tensor, strength: float, threshold: float) -> Tensor:
    """Blend every token with the most similar token of its row's bank, if it is similar enough.

    Args:
        features: [R, HW, C] features of the frames.
        bank: [R, M, C] features of the banks, M at least 1.
        strength: share of the bank's token (alpha), 0 to 1.
        threshold: least cosine similarity, -1 to 1.

    Returns:
        [R, HW, C] (1 - alpha) * own + alpha * nearest; `own` where no token reaches the threshold.
    """
    rows, tokens = features.shape[:2]
    together = rows if rows * tokens**2 <= _TOGETHER else 1
    # A bank of several frames is searched in parts, so that no row's matrix exceeds HW x HW.
    size = max(1, tokens**2 // bank.shape[1])
    fused = []
    for start in range(0, rows, together):
        own, past = features[start : start + together], bank[start : start + together]
        directions = normalize(past, dim=-1).transpose(1, 2)
        parts = [_fuse(p, past, directions, strength, threshold) for p in own.split(size, dim=1)]
        fused.append(_joined(parts, 1))
    return _joined(fused, 0)


def _fuse(
    own: Tensor, bank: Tensor, directions: Tensor, strength: float, threshold: float
) -> Tensor:
    """Fuse some tokens of each row, [R, part, C]; `directions` are the bank's, [R, C, M]."""
    similarity, index = (normalize(own, dim=-1) @ directions).max(-1, keepdim=True)
    nearest = bank.gather(1, index.expand(-1, -1, bank.shape[-1]))
    return torch.where(similarity >= threshold, torch.lerp(own, nearest, strength), own)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
