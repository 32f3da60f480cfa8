"""A client of the live page's websocket, and pictures that carry a number.

Speaks live_page/PROTOCOL.md by itself, so that it finds out where the server does not.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import numpy as np
from PIL import Image

_HEADER = struct.Struct("<BBHIdiIff")
WARMING_UP, OF_OTHERS, LAST = 1, 2, 4
_BITS = 16
_BLACK, _WHITE = 40, 215


class Shown(NamedTuple):
    """A frame that has come back."""

    kind: int
    flags: int
    sequence: int
    captured: float
    frame: int
    number: int
    server_ms: float
    codec_ms: float
    data: bytes
    at: float

    @property
    def picture(self) -> np.ndarray:
        """The pixels of a JPEG, uint8 [H, W, 3]."""
        return np.asarray(Image.open(io.BytesIO(self.data)).convert("RGB"))


class LiveClient:
    """One connection, as a context manager.

    Attributes:
        welcome: the server's answer to the hello.
        status: the last status.
        messages: all others, oldest first.
        frames: what has come back, newest last, without its picture unless `keep` is set.
        sent: frames that were sent.
    """

    def __init__(
        self,
        url: str,
        stream: str = "live",
        role: str = "send",
        keep: bool = False,
        codecs: Sequence[str] = ("jpeg",),
    ) -> None:
        """Prepare a connection to the server at `url`."""
        self._codecs = list(codecs)
        self._url, self._stream, self._role, self._keep = url, stream, role, keep
        self.messages: list[dict[str, Any]] = []
        self.frames: list[Shown] = []
        self.status: dict[str, Any] = {}
        self.welcome: dict[str, Any] = {}
        self.sent = self.credits = 0
        self.closed = asyncio.Event()
        self._changed = asyncio.Event()

    async def __aenter__(self) -> LiveClient:
        self._http = aiohttp.ClientSession()
        try:
            async with self._http.get(f"{self._url}/live2diff/live/token") as answer:
                token = (await answer.json())["token"]
            self._socket = await self._http.ws_connect(f"{self._url}/live2diff/live/socket")
            hello = {"hello": 1, "token": token, "stream": self._stream, "role": self._role}
            await self._socket.send_json({**hello, "codecs": self._codecs})
            self.welcome = await self._socket.receive_json(timeout=30)
            self.credits = self.welcome.get("credits", 0)
        except BaseException:
            await self._http.close()
            raise
        self._reading = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        await self._socket.close()
        await self._http.close()

    async def send(self, picture: bytes, wait: float = 30.0, kind: int = 1) -> None:
        """Send a frame, JPEG or of another kind, once there is a credit for it.

        Raises:
            TimeoutError: there is none for so long.
        """
        await self.until(lambda: self.credits > 0, wait)
        self.credits -= 1
        self.sent += 1
        await self._socket.send_bytes(self.header(self.sent, kind) + picture)

    @staticmethod
    def header(sequence: int, kind: int = 1) -> bytes:
        """Return the header of a frame that is sent now."""
        now = time.perf_counter() * 1000.0
        return _HEADER.pack(1, kind, 0, sequence, now, -1, 0, 0.0, 0.0)

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        await self._socket.send_json(dict(message))

    async def raw(self, data: bytes | str) -> None:
        """Send anything."""
        if isinstance(data, str):
            await self._socket.send_str(data)
        else:
            await self._socket.send_bytes(data)

    async def until(self, happened: Callable[[], object], seconds: float = 60.0) -> None:
        """Wait until something that the server says makes `happened` true.

        Raises:
            TimeoutError: it does not, within `seconds`.
        """
        end = time.monotonic() + seconds
        while not happened():
            left = end - time.monotonic()
            if left <= 0 or self.closed.is_set():
                raise TimeoutError(f"waited in vain; {self.status} {self.messages[-3:]}")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), min(left, 1.0))
            except asyncio.TimeoutError:
                continue

    async def until_told(self, key: str, value: object, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for a message that has `value` under `key`, and return it."""
        found: list[dict[str, Any]] = []

        def told() -> bool:
            found[:] = [message for message in self.messages if message.get(key) == value]
            return bool(found)

        await self.until(told, seconds)
        return found[-1]

    @property
    def results(self) -> list[Shown]:
        """The frames that are results of frames of this client."""
        return [frame for frame in self.frames if not frame.flags & (WARMING_UP | OF_OTHERS)]

    async def _read(self) -> None:
        async for message in self._socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                await self._show(message.data)
            elif message.type is aiohttp.WSMsgType.TEXT:
                self._tell(json.loads(message.data))
            self._changed.set()
        self.closed.set()
        self._changed.set()

    async def _show(self, data: bytes) -> None:
        _, *fields = _HEADER.unpack_from(data)
        now = time.perf_counter()
        shown = Shown(*fields, data[_HEADER.size :] if self._keep else b"", now)
        self.frames.append(shown)
        answer: dict[str, Any] = {"shown": shown.number}
        if shown.captured and not shown.flags & WARMING_UP:
            answer["ms"] = now * 1000.0 - shown.captured
        await self._socket.send_json(answer)

    def _tell(self, message: dict[str, Any]) -> None:
        self.credits += message.get("credits", 0)
        if "status" in message:
            self.status = message["status"]
        elif "credits" not in message:
            self.messages.append(message)


def numbered_jpeg(number: int, side: int = 512) -> bytes:
    """Draw a square picture whose 16 fields are the bits of a number, and encode it."""
    bits = np.array([number >> bit & 1 for bit in range(_BITS)], np.uint8).reshape(4, 4)
    grey = np.where(bits, _WHITE, _BLACK).astype(np.uint8)
    field = side // 4
    picture = grey.repeat(field, 0).repeat(field, 1)[..., None].repeat(3, 2)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return file.getvalue()


def read_number(picture: np.ndarray) -> int:
    """Read the number of a picture that `numbered_jpeg` drew, as it came back."""
    side = picture.shape[0] // 4
    means = picture.reshape(4, side, 4, side, 3).mean((1, 3, 4)).ravel()
    bits = means > (_BLACK + _WHITE) / 2
    return int(sum(1 << bit for bit, on in enumerate(bits) if on))
