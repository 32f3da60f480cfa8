"""One run of Stream Step: the next frames of a live stream."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .live import LiveOutput
from .live_opening import LiveOpening
from .registry import StreamRegistry


@dataclass(frozen=True)
class LiveRun:
    """The checked inputs of Stream Step.

    Attributes:
        opening: what the stream is opened with.
        images: [F, H, W, 3] in 0..1, the next frames.
        hold: see `LiveStream.push`.
    """

    opening: LiveOpening
    images: Tensor
    hold: bool

    def run(self, streams: StreamRegistry) -> LiveOutput:
        """Push the frames into their stream; see `LiveStream.push`.

        Raises:
            ValueError: no stream, or not this one, can take the inputs.
        """
        with self.opening.open(streams) as (live, opened):
            return live.push(opened, self.images, self.hold, self.opening.finish)
