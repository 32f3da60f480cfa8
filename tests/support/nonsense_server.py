"""A ComfyUI for queue_folder that answers as the real one does, but for one answer per video.

`NonsenseServer.play` takes what is wrong for the first video that is asked for, for the second, and
so on (see nonsense.py). Videos beyond these, and all other addresses, get the truth. No model runs:
every result is the same tiny video.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web
from nonsense import Nonsense


class NonsenseServer:
    """Plays the server on a thread; use `running_nonsense`."""

    def __init__(self, video: bytes) -> None:
        """Prepare a server whose results are all `video`."""
        self.video = video
        self.nonsense: list[Nonsense] = []
        self.always: Nonsense | None = None
        self.url = ""
        self._begin()

    def play(self, nonsense: list[Nonsense], always: Nonsense | None = None) -> None:
        """Forget all that was, and play this for the next videos; `always` for each of them."""
        self.nonsense, self.always = nonsense, always
        self._begin()

    def _begin(self) -> None:
        self.seen: list[str] = []
        self._sockets: dict[str, web.WebSocketResponse] = {}
        self._records: dict[str, Any] = {}

    def record(self, prompt_id: str, save_node: str = "16") -> dict[str, Any]:
        """Return the record of a prompt that succeeded."""
        saved = {"filename": "x_00001_.mp4", "subfolder": "queue_folder", "type": "output"}
        messages = [["execution_start", {}], ["execution_success", {"prompt_id": prompt_id}]]
        return {
            "prompt": [1, prompt_id, {}, {}, []],
            "outputs": {save_node: {"images": [saved], "animated": [True]}},
            "status": {"status_str": "success", "completed": True, "messages": messages},
        }

    def _wrong(self, endpoint: str) -> Nonsense | None:
        at = len(self.seen) - 1
        wrong = self.always or (self.nonsense[at] if 0 <= at < len(self.nonsense) else None)
        return wrong if wrong is not None and wrong.endpoint == endpoint else None

    async def _say(self, endpoint: str, target: Any, truth: Any) -> Any:
        """Answer the truth, or what is played instead."""
        if wrong := self._wrong(endpoint):
            return await wrong.answer(target, truth)
        if isinstance(target, web.WebSocketResponse):
            return await target.send_json(truth)
        return web.json_response(truth)

    async def head(self, request: web.Request) -> web.StreamResponse:
        name = request.query["filename"]
        if name not in self.seen:
            self.seen.append(name)
        if self._wrong("head"):
            return await self._say("head", request, None)
        return web.Response(status=404)

    async def view(self, request: web.Request) -> web.StreamResponse:
        if self._wrong("view"):
            return await self._say("view", request, None)
        return web.Response(body=self.video)

    async def upload(self, request: web.Request) -> web.StreamResponse:
        wrong = self._wrong("upload")
        if wrong is None or not wrong.name.startswith("closes"):
            fields = await request.post()
            name = getattr(fields["image"], "filename", "")
            truth = {"name": name, "subfolder": fields["subfolder"], "type": "input"}
            return await self._say("upload", request, truth)
        return await self._say("upload", request, None)

    async def listen(self, request: web.Request) -> web.StreamResponse:
        if self._wrong("ws"):
            return await self._say("ws", request, None)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._sockets[request.query["clientId"]] = socket
        queue = {"status": {"exec_info": {"queue_remaining": 0}}}
        await self._say("greeting", socket, {"type": "status", "data": queue})
        async for _ in socket:
            pass
        return socket

    async def prompt(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        prompt_id = body["prompt_id"]
        self._records[prompt_id] = self.record(prompt_id)
        socket = self._sockets[body["client_id"]]
        said = {"node": "16", "display_node": "16", "prompt_id": prompt_id}
        await self._say("message", socket, {"type": "executing", "data": said})
        progress = {"node": "16", "value": 1, "max": 2, "prompt_id": prompt_id}
        if not socket.closed:
            await socket.send_json({"type": "progress", "data": progress})
            await socket.send_json({"type": "executing", "data": {**said, "node": None}})
        truth = {"prompt_id": prompt_id, "number": 1, "node_errors": {}}
        return await self._say("prompt", request, truth)

    async def queue(self, request: web.Request) -> web.StreamResponse:
        truth: Any = {"queue_running": [[1, "other", {}]], "queue_pending": [[2, "next", {}]]}
        return await self._say("queue", request, truth)

    async def history(self, request: web.Request) -> web.StreamResponse:
        wanted = request.match_info["prompt_id"]
        known = {wanted: self._records[wanted]} if wanted in self._records else {}
        # Before its prompt is queued, a video has no record, in nonsense neither.
        return await self._say("history", request, known) if known else web.json_response({})

    async def system_stats(self, request: web.Request) -> web.StreamResponse:
        return await self._say("system_stats", request, {"system": {}, "devices": []})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        return await self._say("cancel", request, None) if self._wrong("cancel") else web.Response()

    async def serve(self, ready: threading.Event) -> None:
        """Serve until `stop` is set."""
        app = web.Application(client_max_size=2**30)
        add = app.router.add_route
        add("HEAD", "/view", self.head)
        app.router.add_get("/view", self.view, allow_head=False)
        add("GET", "/ws", self.listen)
        add("POST", "/prompt", self.prompt)
        add("GET", "/queue", self.queue)
        add("GET", "/history/{prompt_id}", self.history)
        add("GET", "/system_stats", self.system_stats)
        add("POST", "/upload/image", self.upload)
        add("POST", "/queue", self.cancel)
        add("POST", "/interrupt", self.cancel)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = "http://{}:{}".format(*runner.addresses[0])
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        ready.set()
        await self.stop.wait()
        await runner.cleanup()


@contextmanager
def running_nonsense(video: bytes) -> Iterator[NonsenseServer]:
    """Run a NonsenseServer for the length of a `with` block."""
    played, ready = NonsenseServer(video), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(played.serve(ready)))
    thread.start()
    ready.wait()
    try:
        yield played
    finally:
        played.loop.call_soon_threadsafe(played.stop.set)
        thread.join()
