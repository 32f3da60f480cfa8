"""A contact sheet and X-T slices of one clip by every method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .measuring import FRAMES, SIDE, Translator, drawn, render
from .methods import METHODS

SHOWN = (0, 8, 16, FRAMES - 1)
_LABEL, _GAP, _SCALE = 14, 4, 6


def write_pictures(modules: Path, folder: Path, number: int) -> list[Path]:
    """Translate a held-out clip by every method, and draw both pictures; return their paths."""
    clip, translator = render(number), Translator(modules)
    rows = {"input": clip.pictures, f"{clip.style}, as drawn": drawn(clip)}
    for method in METHODS:
        made = translator.translate(method, clip.pictures, clip.style, 0)
        rows[method.title] = list(made)
    style = clip.style.replace(" ", "-")
    sheets = {f"evidence-{style}.png": _contact_sheet(rows), f"evidence-xt-{style}.png": _xt(rows)}
    for name, sheet in sheets.items():
        sheet.save(folder / name, optimize=True)
    return [folder / name for name in sheets]


def _contact_sheet(rows: Mapping[str, Sequence[np.ndarray]]) -> Image.Image:
    """Draw two methods side by side in every line, with four frames of each."""
    cells = {title: np.hstack([frames[n] for n in SHOWN]) for title, frames in rows.items()}
    return _tiled(cells, columns=2)


def _xt(rows: Mapping[str, Sequence[np.ndarray]]) -> Image.Image:
    """Draw the middle row of all frames below each other, stretched in time."""
    cells = {
        title: np.repeat(np.stack([frame[SIDE // 2] for frame in frames]), _SCALE, axis=0)
        for title, frames in rows.items()
    }
    return _tiled(cells, columns=4)


def _tiled(cells: Mapping[str, np.ndarray], columns: int) -> Image.Image:
    """Place pictures [H, W, 3] in 0..1 of one size in a grid, each below its title."""
    height, width = next(iter(cells.values())).shape[:2]
    lines = -(-len(cells) // columns)
    size = (columns * (width + _GAP), lines * (height + _LABEL + _GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for index, (title, picture) in enumerate(cells.items()):
        left = index % columns * (width + _GAP)
        top = index // columns * (height + _LABEL + _GAP)
        draw.text((left + 2, top + 1), title, "black")
        pixels = np.rint(picture.clip(0, 1) * 255).astype(np.uint8)
        sheet.paste(Image.fromarray(pixels), (left, top + _LABEL))
    return sheet
