"""Whether a stream decays: 1,000 frames of a clip that is played forwards and backwards."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..sample_model.styles import STYLES
from .measuring import Clip, Translator, render
from .methods import BANK, PER_FRAME, D

LASTING = (PER_FRAME, BANK, D)
FRAMES, TURN, EVERY = 1000, 25, 100
# Held-out clips, one of each style, beyond those of the tables.
CLIPS = (100, 101, 102, 103)


@dataclass(frozen=True)
class Course:
    """The error of one clip in one method over time.

    Attributes:
        method, clip: which.
        errors: mean squared difference to the clip as drawn, mean of every 100 frames.
    """

    method: str
    clip: int
    errors: tuple[float, ...]


def to_and_fro(clip: Clip, count: int) -> Iterator[np.ndarray]:
    """Yield `count` pictures of a clip that is played forwards and backwards."""
    pictures = clip.pictures
    period = 2 * (len(pictures) - 1)
    for index in range(count):
        place = index % period
        yield pictures[min(place, period - place)]


def course(translator: Translator, name: str, number: int) -> Course:
    """Stream a clip for 1,000 frames by the method of that name."""
    method = next(each for each in LASTING if each.name == name)
    clip = render(number, TURN)
    wanted = map(STYLES[clip.style], to_and_fro(clip, FRAMES))
    outputs = translator.translate(method, to_and_fro(clip, FRAMES), clip.style, 0)
    errors = [float(np.square(a - b).mean()) for a, b in zip(outputs, wanted, strict=True)]
    means = np.reshape(errors, (-1, EVERY)).mean(1)
    return Course(name, number, tuple(map(float, means)))


def stream_all(modules: Path, folder: Path, part: int, parts: int) -> None:
    """Stream all that are not in `folder`: every `parts`-th, from number `part` on."""
    folder.mkdir(parents=True, exist_ok=True)
    translator = Translator(modules)
    jobs = [(method.name, clip) for method in LASTING for clip in CLIPS]
    for name, clip in jobs[part::parts]:
        path = folder / f"{name}-{clip}.json"
        if not path.is_file():
            found = course(translator, name, clip)
            path.write_text(json.dumps(vars(found)))
            logging.info("%s", found)


def read(folder: Path) -> list[Course]:
    """Read all courses."""
    return [Course(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
