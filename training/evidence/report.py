"""Writes docs/evidence.md from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .cache_cost import Costs
from .lasting import EVERY, LASTING, Course
from .measuring import CLIPS, FRAMES, REFERENCE, SEEDS, SIDE, Sample
from .methods import ABLATION, BASELINES, BOTH, MASKS, PER_FRAME, A, B, C, D, Method
from .modules import STEPS
from .statistics import by_clip, change, interval

# Column of a sample, its title and its scale.
_COLUMNS = (
    ("depth_mse", "depth MSE × 100", 100.0),
    ("warp_error", "warp error × 1000", 1000.0),
    ("error", "error × 100", 100.0),
)
_DRAWN = Method(REFERENCE, "as drawn, for comparison")


def report(
    samples: Sequence[Sample], courses: Sequence[Course], costs: Costs, pictures: Iterable[str]
) -> str:
    """Write the page, in Markdown."""
    parts = [
        _INTRODUCTION.format(clips=CLIPS, seeds=len(SEEDS), frames=FRAMES, side=SIDE, steps=STEPS),
        "## Table 2: warm-up and depth\n",
        _table(samples, ABLATION),
        _expected(samples),
        "## Figure 1: the masks, without depth\n",
        _table(samples, MASKS),
        _LATE,
        "## Table 1: against the other memories\n",
        _table(samples, (*BASELINES, _DRAWN)),
        "## 1,000 frames\n",
        _courses(courses),
        "## Table 3: with the cache and without\n",
        f"{costs.cached * 1000:.0f} ms of the model per frame with the KV-cache, "
        f"{costs.again * 1000:.0f} ms when the UNet computes the window again for every frame: "
        f"{costs.ratio:.1f} times as much (median ratio of measurements in turns, two steps).\n",
        "## Pictures\n",
        _PICTURES,
        *(f"![{name}]({name})\n" for name in pictures),
    ]
    return "\n".join(parts)


def _table(samples: Sequence[Sample], methods: Sequence[Method]) -> str:
    titles = [title for _, title, _ in _COLUMNS]
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for method in methods:
        cells = [
            interval(by_clip(samples, method.name, column)).shown(scale)
            for column, _, scale in _COLUMNS
        ]
        lines.append(f"| {method.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _expected(samples: Sequence[Sample]) -> str:
    """Say which of the paper's orders come out."""
    lines = ["What the paper leads one to expect, on the same clips:", ""]
    for new, old, columns, least in (
        (D, A, ("depth_mse", "warp_error"), 0.0),
        (D, B, ("depth_mse", "warp_error"), 0.0),
        (D, C, ("depth_mse", "warp_error"), 0.0),
        (C, B, ("depth_mse", "warp_error"), 0.0),
        (D, PER_FRAME, ("warp_error",), 0.3),
        (BOTH, PER_FRAME, ("warp_error",), 0.3),
    ):
        for column in columns:
            found = change(*(by_clip(samples, each.name, column) for each in (new, old)))
            more = f" by at least {least:.0%}" if least else ""
            lines.append(
                f"- {new.name} has less {column.replace('_', ' ')} than {old.name}{more}: "
                f"{_verdict(found.mean, found.low, found.high, -least)}, {found.mean:+.0%} "
                f"({found.low:+.0%} to {found.high:+.0%})."
            )
    return "\n".join(lines) + "\n"


def _verdict(mean: float, low: float, high: float, limit: float) -> str:
    if high < limit:
        return "yes"
    if low > limit:
        return "**no**"
    return "on average, but not beyond doubt" if mean < limit else "**not on average**"


def _courses(courses: Sequence[Course]) -> str:
    last = max(len(course.errors) for course in courses)
    ends = [f"{(n + 1) * EVERY}" for n in range(last)]
    lines = [
        "Error × 100 of the hundred frames up to frame …, mean of "
        f"{len({course.clip for course in courses})} clips that are played forwards and "
        "backwards:\n",
        "| | " + " | ".join(ends) + " |",
        "|---" * (last + 1) + "|",
    ]
    for method in LASTING:
        errors = [course.errors for course in courses if course.method == method.name]
        means = [f"{value * 100:.2f}" for value in np.mean(errors, axis=0)]
        lines.append(f"| {method.title} | " + " | ".join(means) + " |")
    return "\n".join(lines) + "\n"


_INTRODUCTION = """\
# The paper's tables, on what can be trained here

Written by `python3 dev.py evidence WORK`; do not edit it by hand.

Nobody outside the authors' group has their training data, and these numbers are not the paper's. \
They show whether its *orders* come out: the same ablations, with motion modules trained by \
`train.py` on the sample model (docs/training.md), {steps} steps each on the same rendered clips.

Every method translates {clips} held-out clips of {frames} frames ({side}x{side}) with {seeds} \
seeds, in two steps from half the noise. Numbers are means over the clips with the 95% confidence \
interval of a bootstrap over clips; lower is better in all columns.

- **Depth MSE**: of the depths that the sample's depth network sees in input and output.
- **Warp error**: of neighbouring frames, by the scene's exact flow, where a point is visible in \
both.
- **Error**: mean squared difference to the input as the style's own rule draws it. A grey picture \
has no warp error, but is no translation: this column tells.

The CLIP score is missing, because no CLIP weights can be had on the machine that made this.
"""
_LATE = """\
1a and 1b see frames to come, so their output is half a window or a whole one late; the streaming \
methods see none.
"""
_PICTURES = """\
One held-out clip by every method: frames 0, 8, 16 and 23, and X-T slices (one row of every frame, \
time downwards).
"""
