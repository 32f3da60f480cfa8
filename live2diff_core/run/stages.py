"""Translates a video while it is decoded and encoded, frame by frame, and remembers how far it got.

Decoding, translating and encoding run side by side in three threads with bounded queues between
them. Every so many frames a checkpoint is made: first the encoder closes a segment, then the state
of the stream is saved. A run that finds a checkpoint goes on from it and gives the same frames.
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
    """Seconds each stage was at work; stages run side by side, so they may add up to more.

    Attributes:
        frames: finished frames.
        stages: seconds by name, in the order in which frames pass them.
        total: seconds by the clock.
    """

    frames: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    total: float = 0.0

    def table(self) -> str:
        """Write the times for the log, in milliseconds per frame."""
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
        frames: the video's frames, already moved to where the translation goes on.
        prepare: scales and crops a decoded picture to the stream's size.
        translator: the stream of pictures.
        opened: its models.
        writer: encodes finished frames; already holding those of earlier runs.
        checkpoint_every: input frames between two checkpoints; 0 makes none.
        save: called with the state after each checkpoint's segment is safe.
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
        """Translate to the end; returns the number of frames written in all, earlier runs' too.

        Whatever is raised, finished frames are encoded and their segment is closed first.
        """
        start = time.perf_counter()
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
        """Return everything that a later run needs to go on from here."""
        shown = [
            [s.time.numerator, s.time.denominator, s.duration.numerator, s.duration.denominator]
            for s in self._inside
        ]
        state = join(translator=self.translator.state_dict())
        return {**state, "inside": torch.tensor(shown, dtype=torch.int64).view(-1, 4)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken."""
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
                self._checkpoint(encoder)
        for picture in self.translator.drain(self.opened):
            self._encode(picture, encoder)
        self.translator.session.warn_of_unreached_prompts(self.opened.denoiser)

    def _encode(self, picture: Tensor, encoder: BackgroundCalls) -> None:
        shown = self._inside.popleft()
        self.times.frames += 1
        image = to_uint8(picture).numpy()
        encoder.submit(lambda: self.writer.write(image, shown.time, shown.duration))
        if self.on_frame is not None:
            done = self.translator.session.frames_in - len(self._inside)
            self.on_frame(done, picture)

    def _checkpoint(self, encoder: BackgroundCalls) -> None:
        """Save frames first, then the state: one ahead of its frames could not be resumed."""
        encoder.submit(self.writer.commit)
        encoder.wait()
        if self.save is not None:
            self.save(self.state_dict())
