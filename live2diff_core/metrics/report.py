"""Measurements as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from .measurement import Measurement
from .names import METRICS, Metric


def as_dict(measurement: Measurement) -> dict[str, Any]:
    """Return plain values for JSON.

    `metrics` has a number per metric that was measured; null where it is not defined, because
    nothing could be compared, or because nothing moves (MAWE).
    """
    values = measurement.values
    return {
        "frames": measurement.frames,
        "width": measurement.width,
        "height": measurement.height,
        "metrics": {m.name: _finite(values[m.name]) for m in METRICS if m.name in values},
        "notes": measurement.notes,
    }


def as_json(measurement: Measurement) -> str:
    """Return the measurement as JSON text."""
    return json.dumps(as_dict(measurement), indent=2)


def as_text(measurement: Measurement) -> str:
    """Return a line for each metric, and one for each note."""
    return table([""], [measurement])


def table(titles: Sequence[str], measurements: Sequence[Measurement]) -> str:
    """Return a table with one line per metric and one column per measurement, and the notes."""
    lines = [("", *titles)] if any(titles) else []
    lines.append(("Frames", *(str(each.frames) for each in measurements)))
    lines.append(("Size", *(f"{each.width}x{each.height}" for each in measurements)))
    for metric in METRICS:
        if any(metric.name in each.values for each in measurements):
            title = metric.title + (f", {metric.better} is better" if metric.better else "")
            lines.append((title, *(_shown(each, metric) for each in measurements)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [_line(line, widths) for line in lines]
    notes = {note: None for each in measurements for note in each.notes.items()}
    return "\n".join([*text, *(f"{name}: {note}" for name, note in notes)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    title = cells[0].ljust(widths[0])
    rest = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([title, *rest]).rstrip()


def _shown(measurement: Measurement, metric: Metric) -> str:
    value = measurement.values.get(metric.name)
    return "-" if _finite(value) is None else f"{value:.{metric.decimals}f}"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
