"""Measures one video against another, frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import names, xt_slice
from .clip_score import Embedder, clip_score
from .depth_error import DepthEstimator, depth_mse
from .flicker import flicker, still
from .flow import FlowEstimator, visible
from .frames import Picture, paired
from .mawe import SIZE, CodeMAWE, PaperMAWE, scaled
from .scene_cuts import SceneCuts
from .series import Series
from .warp_error import warp_error
from .xt_slice import XTSlice


@dataclass(frozen=True)
class Instruments:
    """What a video is measured with; what is None is not measured.

    Attributes:
        flow: for warp errors and MAWE.
        depth: for depth MSE.
        clip: for the CLIP score.
        cuts: opens a counter of scene cuts.
        notes: why something is not measured, or with what it is, by a name for people.
        row: height of the X-T slice, 0 (top) to 1 (bottom).
        mawe_size: sides of the pictures that MAWE compares.
    """

    flow: FlowEstimator | None = None
    depth: DepthEstimator | None = None
    clip: Embedder | None = None
    cuts: Callable[[], SceneCuts] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    row: float = 0.5
    mawe_size: int = SIZE


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        frames, width, height: of both videos.
        values: by the names in `names.METRICS`; None where nothing could be compared, infinite
            where MAWE is. What was not measured is missing.
        series: the same by frame, where there is a number per frame; a frame is compared with the
            one before it.
        xt_slice: uint8 [T, W', 3]: the input's on the left, the output's on the right.
        notes: see `Instruments`.
    """

    frames: int
    width: int
    height: int
    values: dict[str, float | None]
    series: dict[str, Series]
    xt_slice: NDArray[np.uint8]
    notes: dict[str, str]


def measure(
    inputs: Iterable[Picture],
    outputs: Iterable[Picture],
    instruments: Instruments,
    progress: Callable[[int], None] | None = None,
) -> Measurement:
    """Measure `outputs` against `inputs`, holding two frames of each.

    Args:
        inputs, outputs: uint8 [H, W, 3], RGB, as many of each, of one size.
        instruments: what to measure with.
        progress: called after every frame with the number of frames done.

    Raises:
        MeasureError: the videos do not belong together, or are too small.
    """
    run: _Run | None = None
    for before, after in paired(inputs, outputs):
        run = run or _Run(instruments, before)
        run.add(before, after)
        if progress is not None:
            progress(run.frames)
    assert run is not None
    return run.result()


class _Run:
    """What is known of two videos after some frames: numbers, and the last frame of each."""

    def __init__(self, instruments: Instruments, first: Picture) -> None:
        self._with, self.frames = instruments, 0
        self._height, self._width = first.shape[:2]
        row = xt_slice.row_at(self._height, instruments.row)
        self._slices = XTSlice(self._width, row), XTSlice(self._width, row)
        self._cuts = [instruments.cuts() for _ in range(2)] if instruments.cuts else []
        self._mawe, self._paper_mawe = CodeMAWE(), PaperMAWE()
        self._series: dict[str, Series] = {}
        self._held: tuple[Picture, Picture] | None = None
        self._small: Picture | None = None
        self._embedding: NDArray[np.float32] | None = None

    def add(self, source: Picture, result: Picture) -> None:
        """Measure the next frame of both videos."""
        for counter, xt, picture in zip(
            self._cuts or (None, None), self._slices, (source, result), strict=True
        ):
            xt.add(picture)
            if counter is not None:
                counter.add(picture)
        if self._with.depth is not None:
            self._count(names.DEPTH_MSE, depth_mse(self._with.depth, source, result))
        self._embed(result)
        if self._held is not None:
            self._compare(*self._held, source, result)
        if self._with.flow is not None:
            self._motion(result)
        self._held = source, result
        self.frames += 1

    def _embed(self, result: Picture) -> None:
        if self._with.clip is None:
            return
        embedding = self._with.clip(result)
        if self._embedding is not None:
            self._count(names.CLIP_SCORE, clip_score(self._embedding, embedding))
        self._embedding = embedding

    def _compare(
        self, source_before: Picture, before: Picture, source: Picture, result: Picture
    ) -> None:
        """Measure what needs the frame before: warp errors and flicker."""
        mask = still(source_before, source)
        self._count(names.STILL, float(mask.mean()))
        self._count(names.FLICKER, flicker(before, result, mask))
        estimate = self._with.flow
        if estimate is None:
            return
        back = estimate(source, source_before)
        mask = visible(back, estimate(source_before, source))
        self._count(names.VISIBLE, float(mask.mean()))
        self._count(names.WARP_ERROR, warp_error(before, result, back, mask))
        back = estimate(result, before)
        mask = visible(back, estimate(before, result))
        self._count(names.OWN_WARP_ERROR, warp_error(before, result, back, mask))

    def _motion(self, result: Picture) -> None:
        """Measure MAWE, at its own size."""
        estimate, before = self._with.flow, self._small
        small = self._small = scaled(result, self._with.mawe_size)
        if before is None or estimate is None:
            return
        flow = estimate(before, small)
        self._count(names.MAWE, self._mawe.add(before, small, flow))
        self._paper_mawe.add(before, small, flow, visible(flow, estimate(small, before)))

    def _count(self, metric: names.Metric, value: float | None) -> None:
        self._series.setdefault(metric.name, Series()).add(self.frames, value)

    def result(self) -> Measurement:
        """Return what was measured."""
        values = {name: series.mean for name, series in self._series.items()}
        if self._with.flow is not None:
            values[names.MAWE.name] = self._mawe.value
            values[names.MAWE_PAPER.name] = self._paper_mawe.value
        for metric, counter in zip((names.INPUT_CUTS, names.CUTS), self._cuts, strict=False):
            values[metric.name] = float(counter.count)
        return Measurement(
            self.frames,
            self._width,
            self._height,
            values,
            self._series,
            xt_slice.side_by_side(*self._slices),
            dict(self._with.notes),
        )
