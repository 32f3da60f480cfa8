"""Translates a video frame by frame while it is decoded and encoded, and saves states on the way.

Decoding, translating and encoding run side by side in three threads with bounded queues between
them. Every `checkpoint_every` frames the encoder closes a segment; where it is time, the state of
the stream is copied then, and written by a fourth thread. A run that finds a saved state resumes
from it and produces the same frames.

The encoder's thread waits for the pictures, so that the model's thread can queue the next frame's
work on the device meanwhile; and a frame is reported only after that of the next one is queued.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from ..stream.state import State, in_order, integer, integers, join, numbered, part, require
from ..stream.transfer import HostCopy
from ..video.frame import DecodedFrame, Image
from ..video.writer import SegmentWriter
from .background import BackgroundCalls, Prefetch
from .finite import FiniteWatch
from .notices import Notices
from .picture_stream import OpenedModels, PictureStream
from .saving import StateSaver
from .shown import Shown, shown_from, shown_numbers
from .stage_times import StageTimes

FRAMES_AHEAD = 4


class FinishedFrame(NamedTuple):
    """A finished frame on its way into the video.

    Attributes:
        number: its place in the video.
        picture: uint8 [H, W, 3].
        shown: when.
    """

    number: int
    picture: HostCopy
    shown: Shown


@dataclass
class VideoTranslation:
    """One run over a video.

    Attributes:
        frames: the video's frames, already skipped to the first one to translate.
        prepare: scales and crops a decoded picture to the stream's size.
        translator: the stream of pictures, which come out as uint8.
        opened: its models.
        writer: encodes finished frames; already holds those of earlier runs.
        checkpoint_every: input frames of a segment; 0 makes one segment of all.
        saver: saves the states at the ends of segments; None saves none.
        on_frame: called with (finished frames so far, the last picture, uint8 [H, W, 3]).
        notices: takes the warnings.
    """

    frames: Iterator[DecodedFrame]
    prepare: Callable[[Image], Image]
    translator: PictureStream
    opened: OpenedModels
    writer: SegmentWriter
    checkpoint_every: int = 0
    saver: StateSaver | None = None
    on_frame: Callable[[int, HostCopy], None] | None = None
    notices: Notices = field(default_factory=Notices)
    times: StageTimes = field(default_factory=StageTimes)
    _inside: deque[Shown] = field(default_factory=deque)
    # Frames and, as None, the ends of segments.
    _unwritten: deque[FinishedFrame | None] = field(default_factory=deque)
    _ended_at: int = 0
    _unreported: deque[tuple[int, HostCopy]] = field(default_factory=deque)
    _waited: float = 0.0

    def __post_init__(self) -> None:
        """Watch the pictures."""
        self._watch = FiniteWatch(self.notices)

    def run(self) -> int:
        """Translate to the end; return the number of frames written, including earlier runs'.

        After any error, all finished frames have been given to the writer, unless it was its own:
        those are in the state. The segment in progress is left open, for `pause`.
        """
        start = time.perf_counter()
        self.translator.notices = self.notices
        self.translator.open(self.opened)
        decoded = ((frame, self.prepare(frame.image)) for frame in self.frames)
        try:
            with (
                self.saver or nullcontext(),
                BackgroundCalls(FRAMES_AHEAD) as encoder,
                Prefetch(decoded, FRAMES_AHEAD) as ahead,
            ):
                self._write_again(encoder)
                self._translate(ahead, encoder)
        finally:
            self._watch.report()
        self.writer.commit()
        self.times.stages = {
            "decode": ahead.busy_seconds,
            **self.translator.seconds,
            "read back": self._waited,
            "encode": encoder.busy_seconds - self._waited,
        }
        self.times.total = time.perf_counter() - start
        logging.info("Live2Diff: %s", self.times.table())
        return self.frames_finished

    def state_dict(self) -> State:
        """Return everything that a later run needs to resume from here; tensors are not copied.

        Behind a writer that failed, it has the pictures that could not be written. While one
        works, use `_stream_state`.
        """
        frames = [frame for frame in self._unwritten if frame is not None]
        before = [list(self._unwritten)[:at] for at, f in enumerate(self._unwritten) if f is None]
        ends = [sum(frame is not None for frame in earlier) for earlier in before]
        return {
            **self._stream_state(),
            **join(unwritten=numbered([frame.picture.get() for frame in frames])),
            "unwritten_shown": shown_numbers(frame.shown for frame in frames),
            "unwritten_ends": torch.tensor(ends, dtype=torch.int64),
        }

    def _stream_state(self) -> State:
        """Return the state for a time at which all finished frames have been written."""
        state = join(translator=self.translator.state_dict())
        return {
            **state,
            "inside": shown_numbers(self._inside),
            "ended_at": torch.tensor(self._ended_at),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` returned; version 0.1.0 wrote all pictures before it saved.

        Raises:
            ValueError: it is damaged, or of another kind of stream; nothing has changed then.
        """
        counts = self.translator.count_state(part(state, "translator"))
        inside = shown_from(state, "inside", counts.inside)
        pictures = in_order(part(state, "unwritten"))
        unwritten = shown_from(state, "unwritten_shown", len(pictures)) if pictures else []
        ends = integers(state, "unwritten_ends") if "unwritten_ends" in state else []
        require(
            sorted(ends) == ends and max(ends, default=0) <= len(pictures), "its ends are wrong"
        )
        # Version 0.1.0 saved at the ends of segments only.
        entered = counts.frames_in
        ended_at = integer(state, "ended_at") if "ended_at" in state else entered
        self.translator.load_state_dict(part(state, "translator"), self.opened.device)
        self._inside = deque(inside)
        first = self.frames_finished - len(pictures)
        self._unwritten = deque(
            FinishedFrame(number, HostCopy(picture), when)
            for number, (picture, when) in enumerate(zip(pictures, unwritten, strict=True), first)
        )
        for end in reversed(ends):
            self._unwritten.insert(end, None)
        self._ended_at = ended_at

    def restart(self) -> None:
        """Discard what `load_state_dict` loaded."""
        self.translator.reset()
        self._inside.clear()
        self._unwritten.clear()
        self._ended_at = 0

    @property
    def frames_unwritten(self) -> int:
        """Finished frames that wait for the writer."""
        return sum(frame is not None for frame in self._unwritten)

    @property
    def frames_finished(self) -> int:
        """Frames that were given to the writer or wait for it, including earlier runs'."""
        return self.translator.frames_in - len(self._inside)

    def _translate(self, ahead: Prefetch[Any], encoder: BackgroundCalls) -> None:
        if self._end_is_due:
            # An earlier run was stopped between the last frame of a segment and its end.
            self._pass_on(self.translator.finish(self.opened), encoder)
        for frame, image in ahead:
            self._pass_on(self._push(frame, image), encoder)
        self.translator.tell_at_end(self.opened)
        for picture in self.translator.drain(self.opened):
            self._pass_on([picture], encoder)
        self._report(len(self._unreported))

    def _push(self, frame: DecodedFrame, image: Image) -> list[HostCopy]:
        """Push a frame, whose time is kept if it has entered, whatever happens then."""
        before = self.translator.frames_in
        try:
            return self.translator.push(self.opened, _tensor(image))
        finally:
            if self.translator.frames_in > before:
                self._inside.append(Shown(frame.time, frame.duration))

    @property
    def _end_is_due(self) -> bool:
        """Whether the frame that entered last is the last of a segment that has not ended."""
        entered, every = self.translator.frames_in, self.checkpoint_every
        return bool(every and entered) and entered % every == 0 and self._ended_at != entered

    def _write_again(self, encoder: BackgroundCalls) -> None:
        """Write the pictures that an earlier run could not write."""
        for frame in list(self._unwritten):
            encoder.submit(self._end if frame is None else partial(self._write, frame))

    def _pass_on(self, pictures: list[HostCopy], encoder: BackgroundCalls) -> None:
        """Give finished pictures to the encoder, and report those that it was given before.

        With the last frame of a segment goes the segment's end. All of it is noted first, so that
        nothing is lost, and no end either, if the encoder has failed or a report raises.
        """
        earlier, given = len(self._unreported), []
        for picture in pictures:
            frame = FinishedFrame(self.frames_finished, picture, self._inside.popleft())
            given.append(frame)
            self._unreported.append((frame.number + 1, picture))
        self._unwritten.extend(given)
        ends = self._end_is_due
        if ends:
            self._unwritten.append(None)
            self._ended_at = self.translator.frames_in
        for frame in given:
            self.times.frames += 1
            encoder.submit(partial(self._write, frame))
        if ends:
            self._save_behind(encoder.submit(self._end))
        self._report(earlier)

    def _end(self) -> None:
        """End a segment, in the encoder's thread."""
        self.writer.commit()
        self._unwritten.popleft()

    def _write(self, frame: FinishedFrame) -> None:
        """Wait for the picture of a frame and encode it, in the encoder's thread."""
        start = time.perf_counter()
        image = frame.picture.get().numpy()
        self._waited += time.perf_counter() - start
        self._watch.look(frame.number, frame.picture)
        self.writer.write(image, *frame.shown)
        self._unwritten.popleft()

    def _report(self, count: int) -> None:
        """Report the first `count` frames that are not yet reported."""
        for _ in range(count):
            done, picture = self._unreported.popleft()
            if self.on_frame is not None:
                self.on_frame(done, picture)

    def _save_behind(self, ended: Future[Any]) -> None:
        """Save the state behind a segment, if it is time; `ended` makes the segment safe."""
        if self.saver is not None and self.saver.due:
            self.saver.later(self.translator.frames_in, self._stream_state(), ended)


def _tensor(image: Image) -> Tensor:
    """Return an image as a tensor that shares its memory."""
    # Unlike torch.from_numpy, this is no operation that the model's thread runs for every frame.
    return torch.frombuffer(numpy.ascontiguousarray(image), dtype=torch.uint8).view(image.shape)
