"""Target styles: pure functions of one picture, so that a styled clip is as steady as its input.

Pictures are [H, W, 3] float32 in 0..1, sides multiples of 16.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Picture = np.ndarray

# Side of a "pixel" of pixel art, in pixels: two latent pixels', so that they can be learned sharp,
# and four of them agree on its colour however noisy they are.
BLOCK = 16


def photograph(picture: Picture) -> Picture:
    """Return the picture as it is."""
    return picture


def watercolour(picture: Picture) -> Picture:
    """Flat washes of bright, diluted colour, with darker pigment where two of them meet."""
    wash = picture
    for _ in range(2):
        wash = cv2.bilateralFilter(cv2.medianBlur(_bytes(wash), 7), 9, 40, 9) / np.float32(255)
    grey = wash.mean(-1, keepdims=True)
    wash = np.clip(grey + (wash - grey) * 1.6, 0, 1)
    diluted = 1 - 0.72 * (1 - wash)
    border = cv2.GaussianBlur(_gradient(wash), (0, 0), 1.2)[..., None]
    return np.clip(diluted - 0.9 * border * (1 - 0.6 * wash), 0, 1)


def pencil(picture: Picture) -> Picture:
    """Grey lines on white paper, with hatching where it is dark."""
    grey = cv2.cvtColor(cv2.bilateralFilter(picture, 9, 0.15, 5), cv2.COLOR_RGB2GRAY)
    soft = cv2.GaussianBlur(grey, (0, 0), 6)
    lines = np.clip((grey + 0.04) / (soft + 0.04), 0, 1) ** 3
    across, down = np.meshgrid(np.arange(grey.shape[1]), np.arange(grey.shape[0]))
    hatching = 0.5 + 0.5 * np.sin((across + down) * (np.pi / 4)).astype(np.float32)
    dark = np.clip(0.75 - cv2.GaussianBlur(grey, (0, 0), 2), 0, 1)
    drawn = np.clip(lines - 0.55 * dark * hatching - 0.25 * dark, 0, 1)
    return (drawn[..., None] * np.array([0.98, 0.97, 0.95], np.float32)).astype(np.float32)


def neon(picture: Picture) -> Picture:
    """Edges that glow in the colour of what they bound, on a dark ground."""
    soft = cv2.bilateralFilter(cv2.GaussianBlur(picture, (0, 0), 1), 9, 0.2, 5)
    edge = np.clip(_gradient(soft) * 4 - 0.06, 0, 1)
    hue = cv2.cvtColor(cv2.GaussianBlur(soft, (0, 0), 3), cv2.COLOR_RGB2HSV)
    hue[..., 1], hue[..., 2] = np.clip(hue[..., 1] * 2 + 0.45, 0, 1), 1
    colour = cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)
    light = colour * edge[..., None]
    glow = cv2.GaussianBlur(light, (0, 0), 6)
    ground = np.array([0.03, 0.02, 0.09], np.float32) + 0.10 * soft
    return np.clip(ground + light + 0.9 * glow, 0, 1)


def pixel_art(picture: Picture) -> Picture:
    """Large square pixels of a few strong colours."""
    height, width = picture.shape[:2]
    size = (width // BLOCK, height // BLOCK)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    grey = small.mean(-1, keepdims=True)
    small = np.clip(0.5 + (grey + (small - grey) * 1.5 - 0.5) * 1.25, 0, 1)
    few = np.round(small * 4) / 4
    return cv2.resize(few, (width, height), interpolation=cv2.INTER_NEAREST)


STYLES: dict[str, Callable[[Picture], Picture]] = {
    "photograph": photograph,
    "watercolour": watercolour,
    "pencil": pencil,
    "neon": neon,
    "pixel art": pixel_art,
}


def _bytes(picture: Picture) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _gradient(picture: Picture) -> np.ndarray:
    """Return the largest slope of the three colours at every pixel, [H, W]."""
    across = cv2.Sobel(picture, cv2.CV_32F, 1, 0, scale=0.25)
    down = cv2.Sobel(picture, cv2.CV_32F, 0, 1, scale=0.25)
    return np.sqrt(across**2 + down**2).max(-1)
