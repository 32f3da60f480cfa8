"""CLIP score of neighbouring frames: whether their contents are alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .frames import Picture

# From a picture to its embedding [C], of any length.
Embedder = Callable[[Picture], NDArray[np.float32]]


def clip_score(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Return 100 times the cosine similarity of two embeddings, -100 to 100. Higher is better.

    Source: "temporal smoothness" of Xing et al., "Live2Diff", section 4.1 (95.77 in table 1), after
    "frame consistency" of Esser et al., "Structure and Content-Guided Video Synthesis with
    Diffusion Models", ICCV 2023; the embeddings are those of Radford et al., "CLIP", 2021.

    Raises:
        ValueError: an embedding is not finite, or 0.
    """
    first, second = (np.asarray(each, dtype=np.float64).ravel() for each in (before, after))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    if not np.isfinite(lengths) or lengths == 0:
        raise ValueError("CLIP gave embeddings that are 0 or not finite; its file may be damaged.")
    return 100 * float(first @ second) / lengths
