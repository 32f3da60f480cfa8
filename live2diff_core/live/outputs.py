"""Where a live stream goes, beside the page: addresses, devices and recordings."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from typing import Any, Protocol
from urllib.parse import urlsplit

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from ..video.pixels import Yuv420FromRgb
from .channel import Command, LiveChannel
from .device_outputs import NDI, VIRTUAL_CAMERA, NdiSender, VirtualCamera, check_device
from .frames import LiveResult, Picture
from .slot import NewestSlot

# FFmpeg's formats by scheme.
_FORMATS = {"rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "udp": "mpegts"}
RECORDING = "recording"
_ANSWER_SECONDS = 5.0
_PAUSE_SECONDS = 2.0
_TICKS = 1000
_ENCODER = {"preset": "ultrafast", "tune": "zerolatency", "g": "50", "bf": "0", "crf": "20"}


def check_outputs(text: str) -> list[str]:
    """Read the outputs, one a line.

    Raises:
        ValueError: one of them is unknown, or needs a library that is missing.
    """
    outputs = [line.strip() for line in text.splitlines() if line.strip()]
    for output in outputs:
        known = urlsplit(output).scheme in _FORMATS and urlsplit(output).netloc
        if output in (VIRTUAL_CAMERA, NDI):
            check_device(output)
        elif output != RECORDING and not known:
            raise ValueError(
                f"Live Stream cannot write to {output!r:.200}. Each line of 'outputs' is an "
                f"address with one of {', '.join(_FORMATS)}, or one of '{RECORDING}', "
                f"'{VIRTUAL_CAMERA}' and '{NDI}'."
            )
    return outputs


class LiveOutputs:
    """All outputs of a run: a context manager."""

    def __init__(self, outputs: Sequence[str], channel: LiveChannel) -> None:
        """Prepare outputs that `check_outputs` accepts."""
        self._outputs, self._channel = outputs, channel
        self._stack = ExitStack()

    def __enter__(self) -> LiveOutputs:
        """Begin to write."""
        for output in self._outputs:
            if output == RECORDING:
                self._channel.command(Command("record", None, self))
            else:
                self._stack.enter_context(DrivenOutput(output, self._channel))
        return self

    def __exit__(self, *error: object) -> None:
        """Finish all."""
        self._stack.close()

    def show(self, result: LiveResult) -> None:
        """Ignore pictures: the run itself gives them to its recording."""

    def tell(self, message: Mapping[str, Any]) -> None:
        """Pass on that the recording could not begin."""
        if "error" in message:
            self._channel.warn(str(message["error"]))


class Writer(Protocol):
    """An opened output."""

    def add(self, picture: Picture) -> None:
        """Write a picture."""

    def close(self) -> None:
        """Finish."""


class DrivenOutput:
    """Writes the newest results to an output in a thread, and opens it again when it breaks off.

    The frames that are shown as they came, during the warm-up, are never written.
    """

    def __init__(self, output: str, channel: LiveChannel) -> None:
        """Prepare to write to an address or a device."""
        self._output, self._channel = output, channel
        self._slot: NewestSlot[LiveResult] = NewestSlot()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live2diff-output", daemon=True)

    def __enter__(self) -> DrivenOutput:
        """Follow the stream."""
        self._channel.join(self)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Finish what is being written."""
        self._channel.leave(self)
        self._stop.set()
        self._thread.join(2 * _ANSWER_SECONDS)

    def show(self, result: LiveResult) -> None:
        """Write this picture next."""
        if not result.warming_up:
            self._slot.put(result)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Ignore messages."""

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._write_on()
            except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
                self._channel.warn(f"{self._output} cannot be written ({error}); trying again.")
                self._stop.wait(_PAUSE_SECONDS)

    def _write_on(self) -> None:
        """Open the output with the first picture, and write until the end."""
        writer: Writer | None = None
        try:
            while True:
                result = self._slot.take(0.1)
                if result is not None:
                    writer = writer or self._opened(result.picture)
                    writer.add(result.picture)
                elif self._stop.is_set():
                    return
        finally:
            if writer is not None:
                writer.close()

    def _opened(self, picture: Picture) -> Writer:
        if self._output == VIRTUAL_CAMERA:
            return VirtualCamera(picture)
        if self._output == NDI:
            return NdiSender(f"ComfyUI {self._channel.name}", picture)
        return AddressWriter(self._output, picture)


class AddressWriter:
    """An opened address."""

    def __init__(self, address: str, picture: Picture) -> None:
        """Open it for pictures like this one."""
        options = {"rtsp_transport": "tcp"} if address.startswith("rtsp:") else {}
        kind = _FORMATS[urlsplit(address).scheme]
        self._container: OutputContainer = av.open(
            address, "w", format=kind, options=options, timeout=_ANSWER_SECONDS
        )
        stream = self._container.add_stream("libx264", rate=30, options=dict(_ENCODER))
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, _TICKS)
        stream.codec_context.time_base = Fraction(1, _TICKS)
        self._stream, self._convert = stream, Yuv420FromRgb()
        self._start, self._last = time.perf_counter(), -1

    def add(self, picture: Picture) -> None:
        """Encode and send a picture, at the time that it is now."""
        frame = self._convert(picture)
        now = round((time.perf_counter() - self._start) * _TICKS)
        self._last = max(now, self._last + 1)
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Send what the encoder holds, and the end."""
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
