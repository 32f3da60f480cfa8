"""Table 3: the model's time for a frame with the KV-cache, and without."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import torch

from live2diff_core.live2diff.window import AttentionMode, AttentionWindow

from ..sample_model.judging import TARGETS, translated
from .measuring import Translator, render
from .methods import D, Method

_WINDOW = AttentionWindow().window_size
_REPEATS = 5
# The same weights; every frame that is wanted costs a group of them.
_AGAIN = Method("again", "without the KV-cache", D.module, AttentionMode.BIDIRECTIONAL)


@dataclass(frozen=True)
class Costs:
    """Seconds of the model per frame.

    Attributes:
        cached: a frame of the stream, after the warm-up.
        again: a frame without the cache: the UNet computes all frames of its window for it, in as
            many steps, as it does for a chunk.
        ratio: median of `again` / `cached`, measured in turns.
    """

    cached: float
    again: float
    ratio: float


def costs(modules: Path) -> Costs:
    """Measure both in turns."""
    translator = Translator(modules)
    pairs = [(_cached(translator), _again(translator)) for _ in range(_REPEATS)]
    cached, again = zip(*pairs, strict=True)
    ratio = statistics.median(b / a for a, b in pairs)
    return Costs(statistics.median(cached), statistics.median(again), ratio)


def _cached(translator: Translator) -> float:
    """Return the mean of the frames of a second window."""
    seconds = _seconds(translator, D, 2 * _WINDOW)
    return (seconds[-1] - seconds[_WINDOW - 1]) / _WINDOW


def _again(translator: Translator) -> float:
    return _seconds(translator, _AGAIN, _WINDOW)[-1]


@torch.no_grad()
def _seconds(translator: Translator, method: Method, frames: int) -> list[float]:
    """Return the model's seconds so far after every frame."""
    seconds: list[float] = []
    spec = translator.spec(method, TARGETS[0], seed=0)
    for _ in translated(spec, render(0, frames).pictures, seconds.append):
        pass
    return seconds
