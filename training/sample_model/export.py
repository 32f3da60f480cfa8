"""Writes the files that ship: float16, and of the word table only the rows that were trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from live2diff_core.sample_model import loading

from .prompts import UNKNOWN, known_prompts
from .words import tokens

_TABLE = "text_model.embeddings.token_embedding.weight"


def export(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights in float16; what float16 cannot hold is an error.

    Raises:
        ValueError: a weight is not finite in float16.
    """
    halved = {
        name: tensor.detach().half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in weights.items()
    }
    bad = [name for name, tensor in halved.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(f"{path.name}: not finite in float16: {', '.join(bad)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(halved, path)


def known_rows(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace the word table by its trained rows; see `loading.full_table`."""
    kept = {name: tensor for name, tensor in weights.items() if name != _TABLE}
    table, known = weights[_TABLE], sorted(tokens(list(known_prompts())).unique().tolist())
    other = tokens([UNKNOWN])[0, 1]
    kept[loading.TOKENS] = torch.tensor(known, dtype=torch.int32)
    kept[loading.ROWS] = table[known]
    kept[loading.OTHER] = table[other : other + 1]
    return kept
