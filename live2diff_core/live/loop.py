"""The run of a live stream: takes the newest frame, pushes it, shows the result, and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..run.live import LiveOutput, LiveStream
from ..run.live_opening import LiveOpening
from ..run.opened import OpenStream
from ..run.registry import StreamRegistry
from ..run.translator import to_uint8
from .boundary import Boundary
from .channel import PAUSED, RUNNING, STARTING, Command, LiveChannel, refuse
from .controls import Change, ControlError
from .frames import LiveFrame, LiveResult
from .loop_parts import LoopParts, Recorder
from .settings import PROMPTS, LiveSettings

# Longest wait for a frame, between two looks at everything else.
_PATIENCE = 0.05


class LiveLoop:
    """One run of a live stream, in the thread that calls `run`.

    Attributes:
        settings: those that hold now.
        last: the last picture that came out, uint8 [H, W, 3]; None before the first.
    """

    def __init__(self, channel: LiveChannel, settings: LiveSettings, parts: LoopParts) -> None:
        """Prepare a run on a channel that has begun."""
        self._channel, self.settings, self._parts = channel, settings, parts
        self.last: np.ndarray[Any, Any] | None = None
        self._figures = channel.figures
        self._recorder: Recorder | None = None
        self._ending = self._finishing = False
        # Of the whole run, whatever restarts: the next frame that enters, and that comes out.
        self._entering = self._leaving = -1

    def run(self, streams: StreamRegistry) -> None:
        """Run until the stream is stopped or its source ends; then its memory is kept."""
        with self._recording(), self._parts.source:
            if (first := self._first_frame()) is not None:
                self._channel.slot.put(first)
            while not self._ending:
                with self._opening().open(streams) as (live, opened):
                    boundary, changes = self._work(live, opened)
                if boundary is not None:
                    self._cross(streams, live, boundary, changes)
            if self._finishing:
                streams.remove(self._channel.name)

    def _first_frame(self) -> LiveFrame | None:
        """Wait for a frame where only that tells the stream's size."""
        while self._channel.size.size is None and not self._ending:
            if (frame := self._channel.slot.take(_PATIENCE)) is not None:
                return frame
            self._ending = self._parts.watch() or self._parts.source.ended
        return None

    def _opening(self) -> LiveOpening:
        size = self._channel.size.size
        assert size is not None
        return LiveOpening(
            "Live Stream",
            self._channel.name,
            self.settings.spec,
            size=size[::-1],
            frames=1,
            keep_cache=True,
            finish=False,
            max_idle_seconds=self._parts.max_idle_seconds,
            max_bytes=self._parts.max_bytes,
        )

    def _work(self, live: LiveStream, opened: OpenStream) -> tuple[Boundary | None, list[Change]]:
        """Push frames until something changes that other models are needed for, or the end."""
        self._take_up(live)
        while not self._ending:
            self._ending = self._parts.watch()
            while (command := self._channel.next_command()) is not None:
                self._obey(command, live)
            changes = self._channel.pending.take()
            if changes and (boundary := self._changed(live, opened, changes)) is not None:
                return boundary, changes
            paused = self._channel.state == PAUSED
            frame = None if paused else self._channel.slot.take(_PATIENCE)
            if frame is not None:
                self._push(live, opened, frame)
            elif paused:
                time.sleep(_PATIENCE)
            elif self._parts.source.ended:
                self._ending = self._finishing = True
        if self._finishing:
            self._show(live, live.delivered(list(live.translator.drain(opened))), last=True)
        return None, []

    def _take_up(self, live: LiveStream) -> None:
        """Go on with a stream, to which another node may have pushed frames."""
        session = live.translator.session
        out = session.frames_out - len(live.undelivered)
        if self._entering < 0:
            self._entering, self._leaving = session.frames_in, out
        for index in [index for index in live.senders if index < out]:
            live.senders.pop(index).count.drop()
        self._count(live)
        if self._channel.state == STARTING:
            self._channel.move(RUNNING)

    def _count(self, live: LiveStream) -> None:
        session = live.translator.session
        self._figures.warmup = session.warmup
        self._figures.inside = session.frames_in - session.frames_out

    def _push(self, live: LiveStream, opened: OpenStream, frame: LiveFrame) -> None:
        before = live.translator.session.frames_in
        try:
            output = live.push(opened, torch.from_numpy(frame.picture)[None], hold=False)
        finally:
            if live.translator.session.frames_in == before:
                self._channel.drop(frame)
            else:
                live.senders[before] = frame
                self._entering += 1
                if self._recorder is not None:
                    self._recorder.entered(frame)
                    self._figures.recording = self._recorder.status()
        self._count(live)
        if output.frame_index >= 0:
            self._show(live, output)
        elif output.warming_up:
            self._channel.publish(LiveResult(frame.picture, frame, -1))

    def _show(self, live: LiveStream, output: LiveOutput | None, last: bool = False) -> None:
        """Publish the pictures of finished frames."""
        if output is None:
            return
        pictures = to_uint8(output.pictures).numpy()
        for place, picture in enumerate(pictures):
            frame = live.senders.pop(output.frame_index + place, None)
            ends = last and place == len(pictures) - 1
            result = LiveResult(picture, frame, self._leaving, ends)
            self._leaving += 1
            self._figures.finished += 1
            self._figures.frame = self._leaving
            self.last = picture
            self._channel.publish(result)
            if self._recorder is not None:
                self._recorder.came_out(result)
        self._figures.fps_out(len(pictures))
        self._figures.notices = output.notices.text.splitlines()
        self._count(live)

    def _obey(self, command: Command, live: LiveStream) -> None:
        channel = self._channel
        try:
            if command.name in ("pause", "resume"):
                channel.move(PAUSED if command.name == "pause" else RUNNING)
            elif command.name in ("stop", "finish"):
                self._ending, self._finishing = True, command.name == "finish"
            else:
                self._record(command.name == "record", live)
        except ControlError as error:
            refuse(command, error)
        else:
            command.asker.tell({"done": command.name, "id": command.id})

    def _record(self, on: bool, live: LiveStream) -> None:
        if on == (self._recorder is not None):
            now = "is recorded already" if on else "is not being recorded"
            raise ControlError("unavailable", f"The stream {now}.", "Look at the status.")
        if on:
            self._recorder = self._parts.record(live, self.settings)
        elif self._recorder is not None:
            recorder, self._recorder, self._figures.recording = self._recorder, None, None
            recorder.close()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Finish a recording, whatever ends the run."""
        try:
            yield
        finally:
            if self._recorder is not None:
                self._recorder.close()

    # Changes

    def _changed(
        self, live: LiveStream, opened: OpenStream, changes: list[Change]
    ) -> Boundary | None:
        """Make the changes that need no encoding; return what is left for closed models.

        Changes that were refused are taken out of `changes`.
        """
        after = self.settings
        for change in [change for change in changes if change.control not in PROMPTS]:
            try:
                after = after.changed(change)
            except ControlError as error:
                changes.remove(change)
                self._refuse(change, error)
        cut = any(change.control == "cut" for change in changes)
        boundary = Boundary(self.settings, after, cut)
        if not changes:
            return None
        self._show(live, live.delivered(boundary.finish(live.translator, opened)))
        return boundary

    def _cross(
        self,
        streams: StreamRegistry,
        live: LiveStream,
        boundary: Boundary,
        changes: list[Change],
    ) -> None:
        """Encode prompts while no model is open, and go on with the new settings."""
        settings, made = boundary.settings, []
        frame, oldest = boundary.next_frame(live.translator)
        for change in changes:
            conditioning = None
            if change.control in PROMPTS:
                assert self._parts.encode is not None
                conditioning = self._parts.encode(change.value["text"])
                try:
                    settings = settings.with_prompt(change, conditioning, frame, oldest)
                except ControlError as error:
                    self._refuse(change, error)
                    continue
            made.append((change, conditioning))
        if boundary.restarts:
            streams.remove(live.name)
        else:
            boundary.carry(live.translator, settings)
            live.identity = replace(self._opening(), spec=settings.spec).identity()
        self.settings = settings
        self._channel.use(settings)
        self._tell(made, boundary)

    def _tell(self, made: Sequence[tuple[Change, Any]], boundary: Boundary) -> None:
        if self._recorder is not None and made:
            self._recorder.changed(made)
        for change, _ in made:
            restarts = boundary.restarts or change.control == "cut"
            self._channel.tell(
                {
                    "applied": change.control,
                    "value": change.value,
                    "frame": self._entering,
                    "id": change.id,
                    "restarts": restarts and change.control not in PROMPTS,
                }
            )

    def _refuse(self, change: Change, error: ControlError) -> None:
        answer = {"error": str(error), "code": error.code, "remedy": error.remedy}
        self._channel.tell({**answer, "id": change.id})
