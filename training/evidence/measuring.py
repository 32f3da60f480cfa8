"""Measures every method on every held-out clip and seed, one line of JSON for each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from live2diff_core.metrics.depth_error import DepthEstimator, depth_mse
from live2diff_core.metrics.instruments import depth_estimator
from live2diff_core.metrics.warp_error import warp_error
from live2diff_core.run.spec import StreamSpec
from live2diff_core.sample_model.loading import SampleModel, load_sample_model

from ..sample_model.clips import FIRST_HELD_OUT, scene
from ..sample_model.judging import TARGETS, stream_spec, translated
from ..sample_model.pictures import photographs
from ..sample_model.prompts import WORDS
from ..sample_model.scene_maker import SceneMaker
from ..sample_model.scenes import Frame
from ..sample_model.styles import STYLES
from .methods import METHODS, Method

CLIPS, SEEDS, FRAMES, SIDE = 40, (0, 1, 2), 24, 128
# Clips as their style draws them: what a perfect model would give.
REFERENCE = "reference"


@dataclass(frozen=True)
class Sample:
    """What one clip gave with one method and seed.

    Attributes:
        method, clip, seed: which.
        depth_mse: of the depths of input and output, see `depth_mse`.
        warp_error: by the exact flow of the scene, where it is visible in both frames.
        error: mean squared difference to the clip as the style draws it, 0 to 1: a grey picture
            has no warp error, but is no translation.
    """

    method: str
    clip: int
    seed: int
    depth_mse: float
    warp_error: float
    error: float

    @property
    def key(self) -> tuple[str, int, int]:
        """What it is kept by."""
        return self.method, self.clip, self.seed


@dataclass(frozen=True)
class Clip:
    """A held-out clip and the style that it is asked for."""

    number: int
    frames: Sequence[Frame]

    @property
    def style(self) -> str:
        """The style: clips take turns."""
        return TARGETS[self.number % len(TARGETS)]

    @property
    def pictures(self) -> list[np.ndarray]:
        """Its pictures, [H, W, 3] in 0..1."""
        return [frame.picture for frame in self.frames]


@lru_cache(maxsize=1)
def _maker() -> SceneMaker:
    return SceneMaker(list(photographs(held_out=True)))


def render(number: int, count: int = FRAMES) -> Clip:
    """Render the held-out clip of a number."""
    return Clip(number, tuple(scene(_maker(), FIRST_HELD_OUT + number).frames(count, SIDE)))


class Translator:
    """The sample model, which translates clips by any method."""

    def __init__(self, modules: Path) -> None:
        """Load it; motion modules lie in `modules`."""
        self._sample: SampleModel = load_sample_model()
        self._modules = modules
        self._applied: dict[str, Any] = {}

    @property
    def depth(self) -> DepthEstimator:
        """Its depth network, as an instrument."""
        return depth_estimator(self._sample.depth_model)

    def spec(self, method: Method, style: str, seed: int) -> StreamSpec:
        """Describe the stream of a method."""
        if method.name not in self._applied:
            self._applied[method.name] = method.applied(self._sample.model, self._modules)
        model, prompt = self._applied[method.name], WORDS[style][0]
        return stream_spec(self._sample, model, prompt, method.reads_depth, seed)

    @torch.no_grad()
    def translate(
        self, method: Method, pictures: Iterable[np.ndarray], style: str, seed: int
    ) -> Iterator[np.ndarray]:
        """Stream pictures [H, W, 3] in 0..1 through a method."""
        yield from translated(self.spec(method, style, seed), pictures)


def measure(
    name: str, clip: Clip, seed: int, outputs: Sequence[np.ndarray], depth: DepthEstimator
) -> Sample:
    """Measure what a method made of a clip."""
    wanted = drawn(clip)
    before, shown = map(_bytes, clip.pictures), [_bytes(output) for output in outputs]
    # The flow of a frame leads to the next one, so the earlier frame is compared with the later
    # one, moved back.
    warped = [
        warp_error(later, earlier, frame.flow, frame.visible)
        for earlier, later, frame in zip(shown, shown[1:], clip.frames, strict=False)
    ]
    return Sample(
        *(name, clip.number, seed),
        float(np.mean([depth_mse(depth, *pair) for pair in zip(before, shown, strict=True)])),
        float(np.mean([value for value in warped if value is not None])),
        float(np.mean([np.square(a - b).mean() for a, b in zip(outputs, wanted, strict=True)])),
    )


def drawn(clip: Clip) -> list[np.ndarray]:
    """Return the clip as its style draws it."""
    return [STYLES[clip.style](picture) for picture in clip.pictures]


def measure_all(modules: Path, folder: Path, part: int, parts: int, clips: int = CLIPS) -> None:
    """Measure the clips whose number is `part` modulo `parts`, those that are not in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {sample.key for sample in read(folder)}
    translator = Translator(modules)
    with (folder / f"{part}-of-{parts}.jsonl").open("a") as file:
        for number in range(part, clips, parts):
            missing = [
                (method, seed)
                for method in METHODS
                for seed in SEEDS
                if (method.name, number, seed) not in known
            ]
            clip = render(number) if missing else None
            for method, seed in missing:
                assert clip is not None
                outputs = [*translator.translate(method, clip.pictures, clip.style, seed)]
                _append(file, measure(method.name, clip, seed, outputs, translator.depth))
            if clip is not None and (REFERENCE, number, 0) not in known:
                _append(file, measure(REFERENCE, clip, 0, drawn(clip), translator.depth))


def _append(file: TextIO, sample: Sample) -> None:
    file.write(json.dumps(asdict(sample)) + "\n")
    file.flush()
    logging.info("%s", sample)


def read(folder: Path) -> list[Sample]:
    """Read all measurements; a line that was cut off by a kill is left out."""
    samples = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            if line.endswith("}"):
                sample = Sample(**json.loads(line))
                samples[sample.key] = sample
    return [*samples.values()]


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
