"""One websocket of the live page: what it says, and what it is told; see PROTOCOL.md."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from aiohttp import WSMsgType, web

from ..live2diff_core.live.channel import COMMANDS, Command, LiveChannel
from ..live2diff_core.live.channels import CHANNELS
from ..live2diff_core.live.controls import Change, ControlError, checked
from ..live2diff_core.live.frames import LiveFrame, LiveResult
from . import limits
from .follower import Follower
from .frame_header import JPEG, LAST, OF_OTHERS, SIZE, WARMING_UP, FrameHeader, read_header
from .h264 import H264Decoder, H264Encoder
from .jpeg import JpegThreads
from .status import status_message
from .tokens import is_page_token, watch_token

VERSION = 1
SEND, WATCH = "send", "watch"
# The one that a client names first is used, else the first.
CODECS = ("jpeg", "h264")
STATUS_SECONDS = 0.5
_LONGEST_LATENCY = 60_000.0


class Closing(Exception):  # noqa: N818 (no failure: the client is told, and the socket closed)
    """Ends a connection with an error of the protocol."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        """Say what the client did, and what it should do."""
        super().__init__(message)
        self.code, self.remedy = code, remedy


class Connection:
    """A client of one stream, from its hello to its end."""

    def __init__(self, socket: web.WebSocketResponse, jpeg: JpegThreads) -> None:
        """Use a socket that is open."""
        self._socket, self._jpeg = socket, jpeg
        self._follower = Follower()
        self._frames = limits.Allowance(limits.FRAMES_PER_SECOND)
        self._texts = limits.Allowance(limits.TEXTS_PER_SECOND)
        self._role, self._codec = WATCH, CODECS[0]
        self._decoder, self._encoder = H264Decoder(), H264Encoder()
        self._sent = self._acknowledged = 0
        self._channel: LiveChannel | None = None

    async def run(self) -> None:
        """Talk until one side has enough."""
        try:
            channel = self._channel = await self._hello()
            await self._talk(channel)
        except Closing as closing:
            await self._close(closing)
        except (ConnectionError, asyncio.CancelledError):
            pass  # The client or the server is gone.

    async def _talk(self, channel: LiveChannel) -> None:
        await self._socket.send_json(self._welcome(channel))
        await self._socket.send_json(channel.settings_message())
        writing = asyncio.ensure_future(self._write(channel))
        try:
            await self._read(channel)
        finally:
            channel.leave(self._follower)
            CHANNELS.tidy()
            writing.cancel()
            (failure,) = await asyncio.gather(writing, return_exceptions=True)
        if isinstance(failure, Exception):
            raise failure

    async def _hello(self) -> LiveChannel:
        """Wait for the client's hello, and join its stream."""
        try:
            message = await asyncio.wait_for(self._socket.receive(), limits.HELLO_SECONDS)
            hello = parsed(message.data) if message.type is WSMsgType.TEXT else {}
        except (asyncio.TimeoutError, ControlError):
            hello = {}
        version, stream = hello.get("hello"), hello.get("stream")
        if version is None or not isinstance(stream, str) or not 0 < len(stream) <= 200:
            raise Closing("hello", "The first message is no hello.", "Send it within 5 seconds.")
        if version != VERSION:
            raise Closing("version", f"This server speaks version {VERSION}.", "Reload the page.")
        if not is_page_token(hello.get("token")):
            raise Closing("token", "The token is not of this server.", "Reload the page.")
        channel = CHANNELS.get(stream)
        channel.join(self._follower)
        self._ask_role(channel, hello.get("role"))
        offered = hello.get("codecs")
        known = [c for c in offered if c in CODECS] if isinstance(offered, list) else []
        self._codec = known[0] if known else CODECS[0]
        return channel

    def _ask_role(self, channel: LiveChannel, role: object) -> None:
        wanted = role == SEND and channel.claim(self._follower)
        self._role = SEND if wanted else WATCH

    def _welcome(self, channel: LiveChannel) -> dict[str, Any]:
        name = quote(channel.name, safe="")
        return {
            "welcome": VERSION,
            "stream": channel.name,
            "role": self._role,
            "codec": self._codec,
            "session": channel.session,
            "mjpg": f"/live2diff/live/{name}.mjpg?token={watch_token(channel.name)}",
            "credits": limits.CREDITS,
            "window": limits.WINDOW,
            "limits": limits.AS_JSON,
        }

    # What the client says

    async def _read(self, channel: LiveChannel) -> None:
        async for message in self._socket:
            if message.type is WSMsgType.BINARY:
                if not self._frames():
                    raise Closing("rate", "Too many frames.", "Wait for credits.")
                await self._frame(channel, message.data)
            elif message.type is WSMsgType.TEXT:
                if not self._texts():
                    raise Closing("rate", "Too many messages.", "Send fewer.")
                self._text(channel, message.data)

    async def _frame(self, channel: LiveChannel, data: bytes) -> None:
        """Take a frame, or say why not; it is counted in any case."""
        arrived, count = time.perf_counter(), self._follower.count
        count.came()
        try:
            header = read_header(data)
            if self._role != SEND:
                self._refuse("role", "This client only watches.", 'Ask for {"role": "send"}.')
                count.drop()
                return
            if header.kind == JPEG:
                picture = await self._jpeg.decode(memoryview(data)[SIZE:])
            else:
                picture = await self._jpeg.run(self._decoder.decode, data[SIZE:])
            picture = await self._jpeg.run(channel.size, picture)
        except ValueError as error:
            count.drop()
            self._refuse("frame", f"The frame cannot be used: {error}.", "Send JPEG.")
        else:
            decoding = time.perf_counter() - arrived
            channel.offer(
                LiveFrame(picture, count, header.sequence, header.captured, arrived, decoding)
            )
        finally:
            self._follower.tell({"credits": 1})

    def _text(self, channel: LiveChannel, data: str) -> None:
        message: Mapping[str, Any] = {}
        try:
            message = parsed(data)
            self._do(channel, message)
        except ControlError as error:
            self._refuse(error.code, str(error), error.remedy, message.get("id"))

    def _do(self, channel: LiveChannel, message: Mapping[str, Any]) -> None:
        id_ = message.get("id")
        if "shown" in message:
            self._shown(channel, message)
        elif "set" in message:
            name = message["set"]
            channel.change(Change(name, checked(name, message.get("value")), id_))
        elif message.get("command") in COMMANDS:
            channel.command(Command(message["command"], id_, self._follower))
        elif message.get("role") in (SEND, WATCH):
            if message["role"] == WATCH:
                channel.release(self._follower)
            self._ask_role(channel, message["role"])
            self._follower.tell({"role": self._role})
        else:
            raise ControlError("message", "The message is not known.", "See PROTOCOL.md.")

    def _shown(self, channel: LiveChannel, message: Mapping[str, Any]) -> None:
        number, latency = message["shown"], message.get("ms")
        if type(number) is int and self._acknowledged < number <= self._sent:
            self._acknowledged = number
            self._follower.wake.set()
        if self._role == SEND and isinstance(latency, int | float):
            if math.isfinite(latency) and 0 <= latency <= _LONGEST_LATENCY:
                channel.figures.latency(float(latency))

    def _refuse(self, code: str, text: str, remedy: str, id_: object = None) -> None:
        named = {} if id_ is None else {"id": id_}
        self._follower.tell({"error": text, "code": code, "remedy": remedy, **named})

    # What the client is told

    async def _write(self, channel: LiveChannel) -> None:
        """Send messages, the status now and then, and the newest result."""
        due, wake = 0.0, self._follower.wake
        try:
            while True:
                while (text := self._follower.take_text()) is not None:
                    if "state" in text:
                        due = 0.0
                    else:
                        await self._socket.send_json(text)
                if self._follower.overrun:
                    raise Closing("rate", "The client does not read.", "Read its messages.")
                if time.monotonic() >= due:
                    due = time.monotonic() + STATUS_SECONDS
                    await self._socket.send_json(status_message(channel, self._follower.count))
                await self._next_result(channel)
                try:
                    await asyncio.wait_for(wake.wait(), max(due - time.monotonic(), 0.001))
                except asyncio.TimeoutError:
                    pass
                wake.clear()
        except Closing:
            await self._socket.close(code=1008)
            raise
        except ConnectionError:
            logging.debug("Live2Diff: a client of '%s' is gone.", channel.name)
        except Exception:
            # The client must not wait for what will not come; the error goes on to the log.
            await self._socket.close(code=1011)
            raise

    async def _next_result(self, channel: LiveChannel) -> None:
        if self._sent - self._acknowledged >= limits.WINDOW:
            return
        result = self._follower.take_result()
        if result is None:
            return
        if self._codec == "h264":
            kind, coded = await self._jpeg.run(self._encoder.encode, result.picture)
        else:
            kind, coded = JPEG, await self._jpeg.encode(result)
        self._sent += 1
        header = self._header(channel, result, coded.seconds)._replace(kind=kind)
        await self._socket.send_bytes(header.pack() + coded.data)

    def _header(self, channel: LiveChannel, result: LiveResult, encoding: float) -> FrameHeader:
        frame = result.frame
        flags = WARMING_UP * result.warming_up | LAST * result.last
        if frame is None:
            return FrameHeader(JPEG, flags | OF_OTHERS, 0, 0.0, result.index, self._sent)
        others = self._role == SEND and not self._follower.is_own(result)
        codec = (frame.decoding + encoding) * 1000.0
        server = (time.perf_counter() - frame.arrived) * 1000.0
        if not result.warming_up:
            channel.figures.server(server)
            channel.figures.codec(codec)
        return FrameHeader(
            JPEG,
            flags | OF_OTHERS * others,
            0 if others else frame.sequence,
            0.0 if others else frame.captured,
            result.index,
            self._sent,
            server,
            codec,
        )

    async def _close(self, closing: Closing) -> None:
        text = {"error": str(closing), "code": closing.code, "remedy": closing.remedy}
        if not self._socket.closed:
            await self._socket.send_json(text)
            await self._socket.close(code=1008, message=closing.code.encode())


def parsed(data: str) -> Mapping[str, Any]:
    """Read a message.

    Raises:
        ControlError: it is no JSON object.
    """
    if len(data) > limits.TEXT_CHARACTERS:
        raise Closing("size", "The message is too long.", f"At most {limits.TEXT_CHARACTERS}.")
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ControlError("message", "The message is no JSON object.", "See PROTOCOL.md.")
    return message
