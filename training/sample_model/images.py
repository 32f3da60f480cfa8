"""Pictures in every style, rendered once and kept on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .pictures import photographs
from .scene_maker import SceneMaker
from .styles import STYLES

SIDE = 384
COUNT = 1000
# The share of pictures that are cut from a photograph as it is; the others are rendered scenes.
PHOTOGRAPHS = 0.55
_NAME = "images.npy"


def images(folder: Path, count: int = COUNT) -> np.ndarray:
    """Open the pictures, [count, styles, SIDE, SIDE, 3] uint8, and make those that are missing.

    Picture n depends on n alone, so a run that was stopped goes on where it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = (count, len(STYLES), SIDE, SIDE, 3)
    path = folder / _NAME
    mode = "r+" if path.is_file() else "w+"
    stored = np.lib.format.open_memmap(path, mode=mode, dtype=np.uint8, shape=shape)
    missing = [index for index in range(count) if not stored[index, 0, ::16, ::16].any()]
    if missing:
        maker = SceneMaker(list(photographs()))
        for index in missing:
            picture = _plain(maker, index)
            # The photograph comes last: it says that the others are there.
            for style, draw in reversed(list(enumerate(STYLES.values()))):
                stored[index, style] = np.rint(draw(picture) * 255)
    return stored


def _plain(maker: SceneMaker, index: int) -> np.ndarray:
    """Make the picture of a number, [SIDE, SIDE, 3] float32 in 0..1."""
    random = np.random.default_rng((1, index))
    if random.random() < PHOTOGRAPHS:
        cut = maker.crop(random, 300)
        margin = (cut.shape[0] - SIDE) // 2
        return np.ascontiguousarray(cut[margin : margin + SIDE, margin : margin + SIDE])
    return maker.make(index).still(SIDE)[0]
