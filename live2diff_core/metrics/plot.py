"""Draws the course of metrics over the frames, with Pillow alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .names import METRICS, Metric
from .series import Series

WIDTH, PANEL = 768, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 16, 28, 18
_PAPER, _GRID, _INK, _LINE = (255, 255, 255), (208, 208, 208), (48, 48, 48), (31, 111, 180)


def plot(series: Mapping[str, Series]) -> NDArray[np.uint8]:
    """Draw one panel per metric that has a number for some frame, with its mean as a grey line.

    Returns:
        uint8 [H, 768, 3].
    """
    shown = [(each, series[each.name]) for each in METRICS if each.name in series]
    shown = [(metric, values) for metric, values in shown if values.mean is not None]
    image = Image.new("RGB", (WIDTH, max(1, len(shown)) * PANEL), _PAPER)
    draw = ImageDraw.Draw(image)
    if not shown:
        draw.text((_LEFT, _TOP), "There is nothing to show: no frames could be compared.", _INK)
    for index, (metric, values) in enumerate(shown):
        _panel(draw, index * PANEL, metric, values)
    return np.array(image)


def _panel(draw: ImageDraw.ImageDraw, offset: int, metric: Metric, series: Series) -> None:
    frames, values = series.points
    mean = series.mean
    assert mean is not None
    low, high = float(values.min()), float(values.max())
    if high - low < 10**-metric.decimals:
        # A constant is a line in the middle, not noise from edge to edge.
        low, high = low - 10**-metric.decimals, high + 10**-metric.decimals
    top, bottom = offset + _TOP, offset + PANEL - _BOTTOM
    left, right = _LEFT, WIDTH - _RIGHT

    def down(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    span = max(frames[-1] - frames[0], 1)
    across = left + (frames - frames[0]) / span * (right - left)
    draw.rectangle((left, top, right, bottom), outline=_GRID)
    draw.line((left, down(mean), right, down(mean)), fill=_GRID)
    better = f", {metric.better} is better" if metric.better else ""
    draw.text((left, offset + 8), f"{metric.title}: mean {shown(mean, metric)}{better}", _INK)
    for value, row in ((high, top), (low, bottom - 10)):
        draw.text((4, row), shown(value, metric), _INK)
    draw.text((left, bottom + 3), f"frame {frames[0]:.0f}", _INK)
    end = f"frame {frames[-1]:.0f}"
    draw.text((right - draw.textlength(end), bottom + 3), end, _INK)
    points = list(zip(across.tolist(), map(down, values.tolist()), strict=True))
    if len(points) == 1:
        draw.ellipse(
            (points[0][0] - 2, points[0][1] - 2, points[0][0] + 2, points[0][1] + 2), _LINE
        )
    draw.line(points, fill=_LINE, width=2)


def shown(value: float, metric: Metric) -> str:
    """Write a number with the metric's decimals."""
    return f"{value:.{metric.decimals}f}"
