"""A low-level statistic of a picture that tells styles apart, and keeps out what is shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .styles import BLOCK

_LEVELS = 8
# Side of what outlines are averaged over, in pixels.
_CELL = 8
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def signature(picture: np.ndarray) -> np.ndarray:
    """Describe a picture by 18 numbers.

    They are: the mean of red, green and blue; the deviation of brightness; the mean chroma (largest
    less smallest colour); the mean slope and the mean second difference of brightness; the
    logarithm of how much steeper it is on the borders of 16x16 blocks than within them, across and
    down; its deviation within such blocks; the square root of the share of pixels at each of 8
    levels of brightness; and the mean slope of chroma.

    Args:
        picture: [H, W, 3] in 0..1, sides multiples of 16.
    """
    light = picture @ _LUMA
    across, down = np.abs(np.diff(light, axis=1)), np.abs(np.diff(light, axis=0))
    chroma = picture.max(-1) - picture.min(-1)
    levels = np.histogram(light, _LEVELS, (0, 1))[0] / light.size
    return np.array(
        [
            *picture.mean((0, 1)),
            light.std(),
            chroma.mean(),
            across.mean() + down.mean(),
            np.abs(np.diff(light, 2, axis=1)).mean() + np.abs(np.diff(light, 2, axis=0)).mean(),
            _blocks(across) + _blocks(down.T),
            _within_blocks(light),
            *np.sqrt(levels),
            np.abs(np.diff(chroma, axis=1)).mean(),
        ]
    )


def _blocks(slopes: np.ndarray) -> float:
    """Compare slopes along axis 1 between blocks with those within."""
    between = np.arange(slopes.shape[1]) % BLOCK == BLOCK - 1
    faint = 0.02
    return float(np.log((slopes[:, between].mean() + faint) / (slopes[:, ~between].mean() + faint)))


def _within_blocks(light: np.ndarray) -> float:
    """Return the deviation of brightness within blocks."""
    height, width = light.shape
    blocks = light.reshape(height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    return float(np.sqrt(blocks.var((1, 3)).mean()))


def clip_signature(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean signature of a clip's pictures."""
    return np.mean([signature(picture) for picture in pictures], axis=0)


def spread(signatures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the deviation of every number over clips of all styles: the unit of distances."""
    return np.std(signatures, axis=0) + 1e-6


def nearest(found: np.ndarray, candidates: Mapping[str, np.ndarray], unit: np.ndarray) -> str:
    """Name the candidate whose signature is nearest to `found`."""

    def distance(name: str) -> float:
        return float(np.linalg.norm((found - candidates[name]) / unit))

    return min(candidates, key=distance)


def structure(picture: np.ndarray, source: np.ndarray) -> float:
    """Return how alike the outlines of two pictures are: the correlation of their slopes.

    Slopes are of brightness, averaged over 8x8 pixels, so that strokes do not count.
    """
    return float(np.corrcoef(_outlines(picture), _outlines(source))[0, 1])


def _outlines(picture: np.ndarray) -> np.ndarray:
    light = picture @ _LUMA
    height, width = (side // _CELL * _CELL for side in light.shape)
    blocks = light[:height, :width].reshape(height // _CELL, _CELL, width // _CELL, _CELL)
    down, across = np.gradient(blocks.mean((1, 3)))
    return np.hypot(down, across).ravel()
