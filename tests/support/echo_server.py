"""The live page's server without ComfyUI: every frame is its own result, and all can be staged.

For tests of the page alone: what it does when the server is slow, refuses, or goes away.
"""

import asyncio
import itertools
import json
import struct
import threading
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

PAGE = Path(__file__).resolve().parents[2] / "live_page" / "page"
TYPES = {".mjs": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
ROOT, STREAM, SIDE, STATUS_SECONDS = "/live2diff/live", "live", 64, 0.1
# Where a header has the flags and the number of the message; see PROTOCOL.md.
FLAGS_AT, NUMBER_AT = 2, 20
WARMING_UP = 1
SETTINGS = {
    "prompt": {"text": "a first prompt", "blend": 12},
    "negative": {"text": ""},
    "cfg": 1.0,
    "threshold": 1.0,
    "steps": 4,
    "denoise": 0.5,
    "seed": "7",
    "cut": True,
}


class EchoServer:
    """Serves the page and one stream on a loopback port, in a thread of its own.

    `status` is what the page is told; `texts` what it said; `arrived` the sequences that came.
    `credits` are given at the start, `gives_back` says whether a frame's credit returns at once,
    `held` keeps results back.
    """

    def __init__(self) -> None:
        self.port = 0
        self.token = ""
        self.credits, self.gives_back, self.held = 2, True, False
        self.codecs: tuple[str, ...] = ("h264", "jpeg")
        self.unavailable: dict[str, str] = {}
        self.texts: list[dict[str, Any]] = []
        self.arrived: list[int] = []
        self.status: dict[str, Any] = _status()
        self._sockets: list[web.WebSocketResponse] = []
        self._tokens = itertools.count(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.port}{ROOT}"

    def start(self) -> None:
        """Serve; after `stop` on the same port, with another token."""
        self.token = f"token-{next(self._tokens)}"
        self._wait(self._start())

    def stop(self) -> None:
        """End all connections and close the port, as a server that ends does."""
        self._wait(self._runner.cleanup())

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def say(self, message: dict[str, Any]) -> None:
        """Send a message to every page."""
        self._wait(self._broadcast(message))

    def said(self, key: str) -> list[Any]:
        """Return the values of `key` in the messages of the pages so far."""
        return [text[key] for text in self.texts if key in text]

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get(ROOT, self._index)
        app.router.add_get(f"{ROOT}/page/{{name}}", self._file)
        app.router.add_get(f"{ROOT}/token", self._token)
        app.router.add_get(f"{ROOT}/streams", self._streams)
        app.router.add_get(f"{ROOT}/socket", self._socket)
        app.on_shutdown.append(self._hang_up)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _index(self, _: web.Request) -> web.Response:
        text = (PAGE / "index.html").read_text(encoding="utf-8")
        return web.Response(text=text.replace("{{token}}", self.token), content_type="text/html")

    async def _file(self, request: web.Request) -> web.Response:
        path = PAGE / request.match_info["name"]
        return web.Response(body=path.read_bytes(), content_type=TYPES[path.suffix])

    async def _token(self, _: web.Request) -> web.Response:
        return web.json_response({"token": self.token})

    async def _streams(self, request: web.Request) -> web.Response:
        if request.headers.get("X-Live2Diff-Token") != self.token:
            raise web.HTTPForbidden
        return web.json_response({"streams": [{"name": STREAM}, {"name": "second"}]})

    async def _hang_up(self, _: web.Application) -> None:
        for socket in list(self._sockets):
            await socket.close()

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        hello = await socket.receive_json()
        if hello["token"] != self.token:
            await socket.send_json({"error": "The token is of an earlier server", "code": "token"})
            await socket.close()
            return socket
        self.texts.append(hello)
        self._sockets.append(socket)
        await socket.send_json(self._welcome(hello))
        settings = {name: self._setting(name, value) for name, value in SETTINGS.items()}
        await socket.send_json({"settings": settings})
        telling = asyncio.ensure_future(self._tell(socket))
        numbers = itertools.count(1)
        async for message in socket:
            if message.type == WSMsgType.BINARY:
                await self._echo(socket, bytearray(message.data), next(numbers))
            elif message.type == WSMsgType.TEXT:
                await self._answer(socket, json.loads(message.data))
        telling.cancel()
        self._sockets.remove(socket)
        return socket

    def _welcome(self, hello: dict[str, Any]) -> dict[str, Any]:
        role = self._role(hello["role"])
        return {
            "welcome": 1,
            "stream": hello["stream"],
            "role": role,
            "codec": next(codec for codec in hello["codecs"] if codec in self.codecs),
            "session": "s",
            "mjpg": f"{ROOT}/{STREAM}.mjpg?token=read-only",
            "credits": self.credits,
            "window": 2,
            "limits": {},
        }

    def _role(self, asked: str) -> str:
        if self.status["sender"] == "elsewhere":
            return "watch"
        self.status["sender"] = asked == "send"
        return asked

    def _setting(self, name: str, value: Any) -> dict[str, Any]:
        if name in self.unavailable:
            return {"value": value, "available": False, "remedy": self.unavailable[name]}
        return {"value": value, "available": True}

    async def _tell(self, socket: web.WebSocketResponse) -> None:
        while not socket.closed:
            status = {**self.status, "sender": bool(self.status["sender"])}
            await socket.send_json({"status": status})
            await asyncio.sleep(STATUS_SECONDS)

    async def _echo(self, socket: web.WebSocketResponse, frame: bytearray, number: int) -> None:
        self.arrived.append(struct.unpack_from("<I", frame, 4)[0])
        if self.gives_back:
            await socket.send_json({"credits": 1})
        if self.held:
            return
        struct.pack_into("<H", frame, FLAGS_AT, WARMING_UP if self.status["warmup"] else 0)
        struct.pack_into("<I", frame, NUMBER_AT, number)
        await socket.send_bytes(bytes(frame))

    async def _answer(self, socket: web.WebSocketResponse, text: dict[str, Any]) -> None:
        self.texts.append(text)
        if "role" in text:
            await socket.send_json({"role": self._role(text["role"])})
        elif "set" in text:
            applied = {"applied": text["set"], "value": text["value"], "frame": 5}
            again = text["set"] in ("steps", "denoise", "seed", "cut")
            await socket.send_json({**applied, "id": text["id"], "restarts": again})
        elif "command" in text:
            await socket.send_json({"done": text["command"], "id": text["id"]})

    async def _broadcast(self, message: dict[str, Any]) -> None:
        for socket in self._sockets:
            await socket.send_json(message)


def _status() -> dict[str, Any]:
    zeros = ("received", "finished", "dropped", "inside", "watchers")
    nothing = ("warmup", "recording", "vram_gb", "latency_ms", "latency_ms_p95")
    return {
        "state": "running",
        "sender": False,
        "fps_in": 0.0,
        "fps_out": 0.0,
        "server_ms": 0.0,
        "codec_ms": 0.0,
        "frame": 0,
        "notices": [],
        "source": "live page",
        "width": SIDE,
        "height": SIDE,
        **dict.fromkeys(zeros, 0),
        **dict.fromkeys(nothing),
    }
