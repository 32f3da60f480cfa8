"""A recording of a live stream: what entered the model, what came out, and what was changed.

A folder with
- `frames.mkv`: the frames that entered, without loss, at the times at which they came;
- `output.mkv`: their results;
- `recording.json`: the settings at its beginning, and all changes, frame by frame;
- `prompts.safetensors`: the prompts that were changed, encoded;
- `state.safetensors`: the stream where the recording begins, unless it began there itself.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from safetensors.torch import save_file
from torch import Tensor

from ..run.background import BackgroundCalls
from ..run.live import LiveStream
from ..stream.prompt_track import KEY
from ..video.encoder import Encoding
from ..video.frame import VideoError
from ..video.pixels import Yuv420FromRgb, frame_of
from .controls import CONTROLS, Change
from .frames import LiveFrame, LiveResult, Picture
from .settings import PROMPTS, LiveSettings

VERSION = 1
FRAMES, OUTPUT, FACTS = "frames.mkv", "output.mkv", "recording.json"
TEXTS, STATE = "prompts.safetensors", "state.safetensors"
# Pictures that wait for the encoders; then the stream waits for them, and loses no frame that it
# has taken.
_AHEAD = 32
_TICKS = 1000
_ERRORS = (OSError, VideoError, av.error.FFmpegError, ValueError)


class PictureFile:
    """A Matroska file that grows picture by picture, and can be read whenever it stops growing.

    Args:
        path: the file to make.
        size: width and height.
        lossless: whether pictures come back as they were; else it is H.264 that plays everywhere.
    """

    def __init__(self, path: Path, size: tuple[int, int], lossless: bool) -> None:
        """Make the file."""
        options = {"cluster_time_limit": "1000", "flush_packets": "1"}
        self._container = av.open(str(path), "w", format="matroska", container_options=options)
        preset = "ultrafast" if lossless else "veryfast"
        encoding = Encoding("lossless" if lossless else "h264", preset=preset)
        ticks = Fraction(1, _TICKS)
        self._stream = encoding.add_stream(self._container, size, ticks, Fraction(25), Fraction(1))
        self._frame = frame_of if lossless else Yuv420FromRgb()
        self._last = -1

    def add(self, picture: Picture, seconds: float) -> None:
        """Add a picture; its time is moved behind that of the one before it, if it has to be."""
        frame = self._frame(picture)
        self._last = max(round(seconds * _TICKS), self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left."""
        if self._last >= 0:
            self._container.mux(self._stream.encode(None))
        self._container.close()


class Recording:
    """Records a stream from its next frame on. A failure ends the recording, not the stream.

    Args:
        folder: the folder to make.
        live: the stream.
        settings: those of its next frame.
        size: width and height of its frames.
        failed: told why the recording ended by itself.
    """

    def __init__(
        self,
        folder: Path,
        live: LiveStream,
        settings: LiveSettings,
        size: tuple[int, int],
        failed: Callable[[str], object],
    ) -> None:
        """Begin; the stream's state is written at once."""
        folder.mkdir(parents=True)
        self.folder, self._failed, self._broken = folder, failed, False
        self._start: float | None = None
        self.frames, self.seconds = 0, 0.0
        self._texts: dict[str, Tensor] = {}
        session = live.translator.session
        self._facts: dict[str, Any] = {
            "version": VERSION,
            "stream": live.name,
            "size": list(size),
            "identity": live.identity,
            "settings": {n: settings.value(n) for n in CONTROLS if settings.value(n) is not None},
            "prompts": {k: self._track(k, settings) for k in PROMPTS if k in settings.texts},
            "first": session.frames_in,
            "state": session.frames_in > 0,
            "changes": [],
        }
        if session.frames_in:
            live.save(folder / STATE)
        self._input = PictureFile(folder / FRAMES, size, lossless=True)
        self._output = PictureFile(folder / OUTPUT, size, lossless=False)
        self._calls = BackgroundCalls(_AHEAD)
        self._write_facts()

    def entered(self, frame: LiveFrame) -> None:
        """Keep a frame that has entered."""
        if self._start is None:
            self._start = frame.arrived
        self.seconds = frame.arrived - self._start
        self.frames += 1
        self._submit(self._input.add, frame.picture, self.seconds)

    def came_out(self, result: LiveResult) -> None:
        """Keep the result of a frame; those of frames before the recording are left out."""
        frame = result.frame
        if frame is not None and self._start is not None and frame.arrived >= self._start:
            self._submit(self._output.add, result.picture, frame.arrived - self._start)

    def changed(self, changes: Sequence[tuple[Change, Any]]) -> None:
        """Keep the changes before the next frame, each with its encoded prompt or None."""
        for change, conditioning in changes:
            entry = {"frame": self.frames, "control": change.control, "value": change.value}
            if conditioning is not None:
                entry["text"] = self._keep(conditioning[0][0])
            self._facts["changes"].append(entry)
        self._submit(self._write_facts)

    def close(self) -> None:
        """Finish the files."""
        self._submit(self._write_facts)
        for call in (self._input.close, self._output.close):
            self._submit(call)
        try:
            self._calls.__exit__(None)
        except _ERRORS as error:
            self._fail(error)
        logging.info("Live2Diff: recorded %d frames in %s.", self.frames, self.folder)

    def status(self) -> dict[str, Any]:
        """Describe it for those who follow the stream."""
        return {
            "frames": self.frames,
            "seconds": round(self.seconds, 1),
            "file": f"{self.folder.name}/{OUTPUT}",
        }

    def _submit(self, call: Callable[..., object], *arguments: Any) -> None:
        if self._broken:
            return
        try:
            self._calls.submit(lambda: call(*arguments))
        except _ERRORS as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self._broken:
            self._broken = True
            self._failed(f"the recording in {self.folder.name} ended: {error}")

    def _track(self, control: str, settings: LiveSettings) -> Mapping[str, Any]:
        """Keep a prompt that was changed before, and how it blends in."""
        ((text, extra),) = settings.inputs[PROMPTS[control]]
        track = extra.get(KEY)
        if track is None:
            return {"texts": [self._keep(text)], "changes": []}
        changes = [[change.start, change.blend] for change in track.timeline.changes]
        return {"texts": [self._keep(each) for each in track.texts], "changes": changes}

    def _keep(self, text: Tensor) -> str:
        name = str(len(self._texts))
        self._texts[name] = text.detach().to("cpu").contiguous().clone()
        return name

    def _write_facts(self) -> None:
        if self._texts:
            save_file(self._texts, self.folder / f"{TEXTS}.part")
            os.replace(self.folder / f"{TEXTS}.part", self.folder / TEXTS)
        part = self.folder / f"{FACTS}.part"
        facts = {**self._facts, "frames": self.frames}
        part.write_text(json.dumps(facts, indent=1), encoding="utf-8")
        os.replace(part, self.folder / FACTS)
