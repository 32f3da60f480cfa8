"""Translates a video frame by frame while it is decoded and encoded, and saves states on the way.

Decoding, translating and encoding run side by side in three threads with bounded queues between
them. Every `checkpoint_every` frames the encoder closes a segment, and then the state of the stream
is saved. A run that finds a saved state resumes from it and produces the same frames.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..stream.state import State, join, part
from ..video.frame import DecodedFrame, Image
from ..video.writer import SegmentWriter
from .background import BackgroundCalls, Prefetch
from .translator import FrameTranslator, to_uint8

if TYPE_CHECKING:
    from .opened import OpenStream

FRAMES_AHEAD = 4


@dataclass(frozen=True)
class Shown:
    """The time and the duration of a frame, in seconds."""

    time: Fraction
    duration: Fraction


@dataclass
class StageTimes:
    """Busy seconds of each stage; stages run side by side, so their sum may exceed the total.

    Attributes:
        frames: number of finished frames.
        stages: seconds by name, in the order in which frames pass the stages.
        total: elapsed seconds.
    """

    frames: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    total: float = 0.0

    def table(self) -> str:
        """Format the times for the log, in seconds and in milliseconds per frame."""
        frames = max(self.frames, 1)
        rows = [
            f"  {name:<12}{seconds:9.1f} s {seconds / frames * 1e3:9.1f} ms"
            for name, seconds in {**self.stages, "total": self.total}.items()
        ]
        rate = self.frames / self.total if self.total else 0.0
        return "\n".join(
            [f"{self.frames} frames, {rate:.2f} per second; each stage at work:", *rows]
        )


@dataclass
class VideoTranslation:
    """One run over a video.

    Attributes:
        frames: the video's frames, already skipped to the first one to translate.
        prepare: scales and crops a decoded picture to the stream's size.
        translator: the stream of pictures.
        opened: its models.
        writer: encodes finished frames; already holds those of earlier runs.
        checkpoint_every: input frames between two saved states; 0 saves none.
        save: called with the state, each time after its segment is safe on disk.
        on_frame: called with (finished frames so far, the last picture [H, W, 3] in 0..1).
    """

    frames: Iterator[DecodedFrame]
    prepare: Callable[[Image], Image]
    translator: FrameTranslator
    opened: OpenStream
    writer: SegmentWriter
    checkpoint_every: int = 0
    save: Callable[[State], None] | None = None
    on_frame: Callable[[int, Tensor], None] | None = None
    times: StageTimes = field(default_factory=StageTimes)
    _inside: deque[Shown] = field(default_factory=deque)

    def run(self) -> int:
        """Translate to the end; return the number of frames written, including earlier runs'.

        After any error, finished frames are still encoded and their segment is closed.
        """
        start = time.perf_counter()
        self.translator.open(self.opened)
        decoded = ((frame, self.prepare(frame.image)) for frame in self.frames)
        try:
            with (
                BackgroundCalls(FRAMES_AHEAD) as encoder,
                Prefetch(decoded, FRAMES_AHEAD) as ahead,
            ):
                self._translate(ahead, encoder)
        finally:
            self.writer.commit()
        self.times.stages = {
            "decode": ahead.busy_seconds,
            **self.translator.seconds,
            "encode": encoder.busy_seconds,
        }
        self.times.total = time.perf_counter() - start
        logging.info("Live2Diff: %s", self.times.table())
        return self.translator.session.frames_out

    def state_dict(self) -> State:
        """Return everything that a later run needs to resume from here."""
        shown = [
            [s.time.numerator, s.time.denominator, s.duration.numerator, s.duration.denominator]
            for s in self._inside
        ]
        state = join(translator=self.translator.state_dict())
        return {**state, "inside": torch.tensor(shown, dtype=torch.int64).view(-1, 4)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self.translator.load_state_dict(part(state, "translator"), self.opened.device)
        self._inside = deque(
            Shown(Fraction(a, b), Fraction(c, d)) for a, b, c, d in state["inside"].tolist()
        )

    def restart(self) -> None:
        """Discard what `load_state_dict` loaded."""
        self.translator.reset()
        self._inside.clear()

    def _translate(self, ahead: Prefetch[Any], encoder: BackgroundCalls) -> None:
        for frame, image in ahead:
            self._inside.append(Shown(frame.time, frame.duration))
            for picture in self.translator.push(self.opened, torch.from_numpy(image)):
                self._encode(picture, encoder)
            if self.checkpoint_every and (frame.index + 1) % self.checkpoint_every == 0:
                self._save_state(encoder)
        for picture in self.translator.drain(self.opened):
            self._encode(picture, encoder)

    def _encode(self, picture: Tensor, encoder: BackgroundCalls) -> None:
        shown = self._inside.popleft()
        self.times.frames += 1
        image = to_uint8(picture).numpy()
        encoder.submit(lambda: self.writer.write(image, shown.time, shown.duration))
        if self.on_frame is not None:
            done = self.translator.session.frames_in - len(self._inside)
            self.on_frame(done, picture)

    def _save_state(self, encoder: BackgroundCalls) -> None:
        """Save frames first, then the state: a state ahead of its frames cannot be resumed."""
        encoder.submit(self.writer.commit)
        encoder.wait()
        if self.save is not None:
            self.save(self.state_dict())
