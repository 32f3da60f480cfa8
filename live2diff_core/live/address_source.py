"""Frames from an address that FFmpeg can open: a network stream, or a camera of this computer."""

from __future__ import annotations

import re
import sys
import threading
import time
from urllib.parse import urlsplit

import av
from av.container import InputContainer

from ..video.pixels import RgbFromFrame
from .channel import LiveChannel
from .frames import FrameCount, LiveFrame

# Files that are sent over these end; streams over the others are opened again when they do.
_FILES = ("http", "https")
SCHEMES = ("rtsp", "rtmp", "rtmps", "udp", *_FILES)
CAMERA = "camera:"
# What a playlist or a redirection may lead to: never a file of this computer.
_PROTOCOLS = "rtsp,rtp,rtmp,rtmps,rtmpt,udp,tcp,tls,http,https,httpproxy,crypto"
_ANSWER_SECONDS = 5.0
# How long to try when nothing ever came, and when something had come.
_FIRST_SECONDS, _AGAIN_SECONDS = 15.0, 300.0
_LONGEST_PAUSE = 8.0
_LATE_SECONDS = 0.5


class SourceError(ValueError):
    """An address that gives no frames. The message says which, and what to do."""


def check_source(address: str) -> None:
    """Refuse what is no network stream and no camera.

    Raises:
        SourceError: the message lists what there is.
    """
    if not address.startswith(CAMERA):
        if urlsplit(address).scheme not in SCHEMES or not urlsplit(address).netloc:
            raise SourceError(
                f"Live Stream cannot open {address!r:.200}. Give it an address with one of "
                f"{', '.join(SCHEMES)}, or camera:DEVICE. For a file, use Stream Video, or choose "
                "the file in the live page."
            )
    elif sys.platform == "linux" and not re.fullmatch(r"camera:/dev/video\d{1,3}", address):
        raise SourceError(
            f"{address!r:.200} is no camera. Cameras are camera:/dev/video0 and so on."
        )


class AddressSource:
    """Reads an address in a thread, and opens it again when it breaks off.

    Attributes:
        count: what became of its frames.
    """

    def __init__(self, address: str, channel: LiveChannel) -> None:
        """Prepare to read an address that `check_source` accepts."""
        self._address, self._channel = address, channel
        self.count, self._error = FrameCount(), ""
        self._stop, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="live2diff-source", daemon=True)

    def __enter__(self) -> AddressSource:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading; an answer that is waited for ends by itself."""
        self._stop.set()
        self._thread.join(2 * _ANSWER_SECONDS)

    @property
    def ended(self) -> bool:
        """Whether no more frames will come.

        Raises:
            SourceError: because none can be read.
        """
        if self._over.is_set() and self._error:
            raise SourceError(self._error)
        return self._over.is_set()

    def _run(self) -> None:
        try:
            self._read_on()
        finally:
            self._over.set()

    def _read_on(self) -> None:
        """Open the address again and again, until it ends or nothing has come for too long."""
        pause, heard = 0.5, time.monotonic()
        while not self._stop.is_set():
            before = self.count.received
            try:
                with _opened(self._address) as container:
                    self._play(container)
                if urlsplit(self._address).scheme in _FILES:
                    return
                reason = "it ended"
            except (av.error.FFmpegError, OSError, ValueError) as error:
                reason = str(error)
            if self._stop.is_set():
                return
            if self.count.received > before:
                pause, heard = 0.5, time.monotonic()
                self._channel.warn(f"{self._address} broke off ({reason}); it is opened again.")
            patience = _AGAIN_SECONDS if self.count.received else _FIRST_SECONDS
            if time.monotonic() - heard > patience:
                self._error = (
                    f"Nothing comes from {self._address}: {reason}. Check the address, and "
                    "whether the other side sends."
                )
                return
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _play(self, container: InputContainer) -> None:
        """Hand in frame after frame; those of files at the times that they have."""
        stream = container.streams.video[0]
        stream.thread_type = "SLICE"  # Threads by frame would each hold one back.
        pace = _Pace() if urlsplit(self._address).scheme in _FILES else None
        convert: RgbFromFrame | None = None
        for frame in container.decode(stream):
            if self._stop.is_set():
                return
            if pace is not None and frame.time is not None:
                pace.wait(frame.time, self._stop)
            start = time.perf_counter()
            convert = convert or RgbFromFrame(frame.width, frame.height, 0)
            picture = self._channel.size(convert(frame))
            self.count.came()
            self._channel.offer(
                LiveFrame(
                    picture,
                    self.count,
                    self.count.received,
                    captured=start * 1000.0,
                    arrived=start,
                    decoding=time.perf_counter() - start,
                )
            )


class _Pace:
    """Waits until it is time for a frame, by the clock of this computer."""

    def __init__(self) -> None:
        self._start: float | None = None

    def wait(self, seconds: float, stop: threading.Event) -> None:
        """Wait for the frame at `seconds`; begin anew where the times jump."""
        now = time.monotonic()
        early = 0.0 if self._start is None else self._start + seconds - now
        if self._start is None or not -_LATE_SECONDS < early < _LONGEST_PAUSE:
            self._start = now - seconds
        elif early > 0:
            stop.wait(early)


def _opened(address: str) -> InputContainer:
    """Open an address with little buffering.

    Raises:
        FFmpegError, OSError, ValueError: it cannot be opened, or has no picture.
    """
    file, kind = address, None
    options = {"flags": "low_delay", "probesize": "500000"}
    if urlsplit(address).scheme not in _FILES:
        # Leaves out what came while the stream was probed, which is late already.
        options["fflags"] = "nobuffer"
    if address.startswith(CAMERA):
        file = address[len(CAMERA) :]
        kind = {"linux": "v4l2", "darwin": "avfoundation", "win32": "dshow"}[sys.platform]
        file = f"video={file}" if sys.platform == "win32" else file
    else:
        options["protocol_whitelist"] = _PROTOCOLS
        if address.startswith("rtsp:"):
            options["rtsp_transport"] = "tcp"
    container = av.open(file, format=kind, options=options, timeout=_ANSWER_SECONDS)
    if not container.streams.video:
        container.close()
        raise ValueError("it has no picture")
    return container
