"""Translates a video frame by frame while it is decoded and encoded, and saves states on the way.

Decoding, translating and encoding run side by side in three threads with bounded queues between
them. Every `checkpoint_every` frames the encoder closes a segment, and then the state of the stream
is saved. A run that finds a saved state resumes from it and produces the same frames.

The encoder's thread waits for the pictures, so that the model's thread can queue the next frame's
work on the device meanwhile; and a frame is reported only after that of the next one is queued.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy
import torch
from torch import Tensor

from ..stream.state import State, join, part
from ..stream.transfer import HostCopy
from ..video.frame import DecodedFrame, Image
from ..video.writer import SegmentWriter
from .background import BackgroundCalls, Prefetch
from .finite import FiniteWatch
from .translator import FrameTranslator

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

    They are times of threads. A GPU works on its own: there the stages between "decode" and
    "read back" are the time to queue their work, and "read back" is the time that the encoder's
    thread waits for the device. Where "read back" is near the total, the device is the limit.

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
        translator: the stream of pictures, which come out as uint8.
        opened: its models.
        writer: encodes finished frames; already holds those of earlier runs.
        checkpoint_every: input frames between two saved states; 0 saves none.
        save: called with the state, each time after its segment is safe on disk.
        on_frame: called with (finished frames so far, the last picture, uint8 [H, W, 3]).
    """

    frames: Iterator[DecodedFrame]
    prepare: Callable[[Image], Image]
    translator: FrameTranslator
    opened: OpenStream
    writer: SegmentWriter
    checkpoint_every: int = 0
    save: Callable[[State], None] | None = None
    on_frame: Callable[[int, HostCopy], None] | None = None
    times: StageTimes = field(default_factory=StageTimes)
    _inside: deque[Shown] = field(default_factory=deque)
    _unreported: deque[tuple[int, HostCopy]] = field(default_factory=deque)
    _watch: FiniteWatch = field(default_factory=FiniteWatch)
    _waited: float = 0.0

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
            "read back": self._waited,
            "encode": encoder.busy_seconds - self._waited,
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
            self._pass_on(self.translator.push(self.opened, _tensor(image)), encoder)
            if self.checkpoint_every and (frame.index + 1) % self.checkpoint_every == 0:
                self._save_state(encoder)
        for picture in self.translator.drain(self.opened):
            self._pass_on([picture], encoder)
        self._report(len(self._unreported))

    def _pass_on(self, pictures: list[HostCopy], encoder: BackgroundCalls) -> None:
        """Give finished pictures to the encoder, and report those that it was given before."""
        earlier = len(self._unreported)
        for picture in pictures:
            shown = self._inside.popleft()
            self.times.frames += 1
            done = self.translator.session.frames_in - len(self._inside)
            encoder.submit(partial(self._write, done - 1, picture, shown))
            self._unreported.append((done, picture))
        self._report(earlier)

    def _write(self, frame: int, picture: HostCopy, shown: Shown) -> None:
        """Wait for the picture of `frame` and encode it, in the encoder's thread."""
        start = time.perf_counter()
        image = picture.get().numpy()
        self._waited += time.perf_counter() - start
        self._watch.look(frame, picture)
        self.writer.write(image, shown.time, shown.duration)

    def _report(self, count: int) -> None:
        """Report the first `count` frames that are not yet reported."""
        for _ in range(count):
            done, picture = self._unreported.popleft()
            if self.on_frame is not None:
                self.on_frame(done, picture)

    def _save_state(self, encoder: BackgroundCalls) -> None:
        """Save frames first, then the state: a state ahead of its frames cannot be resumed."""
        encoder.submit(self.writer.commit)
        encoder.wait()
        if self.save is not None:
            self.save(self.state_dict())


def _tensor(image: Image) -> Tensor:
    """Return an image as a tensor that shares its memory."""
    # Unlike torch.from_numpy, this is no operation that the model's thread runs for every frame.
    return torch.frombuffer(numpy.ascontiguousarray(image), dtype=torch.uint8).view(image.shape)
