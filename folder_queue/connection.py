"""HTTP and websockets to one ComfyUI server, for callers that wait for each answer.

The one aiohttp session lives on a thread with its own event loop. The caller therefore needs no
event loop, and may have another one running, as Playwright's synchronous API does.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
import weakref
from collections.abc import Coroutine, Generator
from concurrent import futures
from typing import Any, BinaryIO, TypeVar, cast

import aiohttp

from .answers import Answer, Message
from .errors import AnswerError, ConnectionLostError, PromptError, ServerGoneError

T = TypeVar("T")
C = TypeVar("C", bound="Connection")
ANSWER_SECONDS = 600.0
PING = aiohttp.ClientTimeout(5.0)
PAUSE_SECONDS = 1.0
CLOSE_SECONDS = 10.0
# Waits are split into polls, because on Windows Ctrl-C does not interrupt a waiting thread.
POLL_SECONDS = 0.5
CHUNK_BYTES = 1 << 20
# A proxy's status codes while the server behind it is down.
AWAY = (502, 503, 504)
LOST = (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError, futures.CancelledError)


class Connection:
    """Sends requests to the server at `url`; several threads may use it at the same time.

    `close` ends the session and its thread, and so does the end of a `with` block or the garbage
    collection of an unclosed connection. The interpreter does not wait for the thread at exit.
    """

    def __init__(self, url: str) -> None:
        """Start the thread; nothing is connected yet."""
        self.url = url.rstrip("/")
        ready: futures.Future[Any] = futures.Future()
        self._thread = threading.Thread(target=asyncio.run, args=[_serve(ready)], daemon=True)
        self._thread.start()
        self._loop, self._session, stop = ready.result()
        self._end = weakref.finalize(self, self._loop.call_soon_threadsafe, stop.set)
        self._end.atexit = False

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session and its thread; safe to call twice."""
        self._end()
        self._thread.join(CLOSE_SECONDS)

    def ask(self, method: str, path: str, into: BinaryIO | None = None, **options: Any) -> Answer:
        """Send a request and return the answer; write its body `into` a file if one is given.

        `options` are passed to `aiohttp.ClientSession.request`. Raises AnswerError when the answer
        is an error, ConnectionLostError when there is none or it is shorter than announced.
        """

        async def exchange() -> Answer:
            async with self._session.request(method, self.url + path, **options) as reply:
                if reply.status in AWAY:
                    raise ConnectionLostError(f"{self.url} is away ({reply.status})")
                if reply.status >= 400:
                    raise AnswerError(path, reply.status, await reply.text(errors="replace"))
                if into is None:
                    return Answer(reply.content_length, await reply.read())
                async for piece in reply.content.iter_chunked(CHUNK_BYTES):
                    into.write(piece)
                return Answer(reply.content_length, b"")

        return self._wait_for(exchange())

    def get(self, path: str, **options: Any) -> Any:
        """GET a JSON document, for example "/object_info/KSampler"; raises as `ask` does."""
        return json.loads(self.ask("GET", path, **options).body)

    def post(self, path: str, document: dict[str, Any]) -> bytes:
        """POST a JSON document and return the body of the answer; raises as `ask` does."""
        return self.ask("POST", path, json=document).body

    def listen(self, path: str, seconds: float) -> Generator[Message | None, None, None]:
        """Open a websocket and yield its messages, and None after every `seconds` of silence.

        Closing the generator closes the websocket. Raises ConnectionLostError if the server closes.
        """

        async def connect() -> aiohttp.ClientWebSocketResponse:
            return await self._session.ws_connect(self.url + path, max_msg_size=0)

        socket = self._wait_for(connect())
        try:
            while True:
                yield self._wait_for(_next_message(socket, seconds))
        finally:
            if self._end.alive:
                self._wait_for(socket.close())

    def is_up(self) -> bool:
        """Return whether a ComfyUI answers."""
        try:
            return "system" in self.get("/system_stats", timeout=PING)
        except (PromptError, ValueError, TypeError):
            return False

    def wait_until_up(self, seconds: float) -> None:
        """Wait until the server answers. Raises ServerGoneError after `seconds`."""
        deadline = time.monotonic() + seconds
        while not self.is_up():
            left = deadline - time.monotonic()
            if left <= 0:
                raise ServerGoneError(f"{self.url} did not come back within {seconds:.0f} s")
            time.sleep(min(PAUSE_SECONDS, left))

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the session's thread and return its result; Ctrl-C here cancels it."""
        if not self._end.alive:
            work.close()
            raise RuntimeError(f"the connection to {self.url} is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while not futures.wait([future], POLL_SECONDS).done:
                # Work that is scheduled while the event loop ends would never run.
                if not self._end.alive:
                    future.cancel()
            return future.result()
        except LOST as error:
            reason = str(error) or type(error).__name__
            raise ConnectionLostError(f"no answer from {self.url}: {reason}") from error
        finally:
            future.cancel()


async def _serve(ready: futures.Future[Any]) -> None:
    """Open a session, hand out (event loop, session, stop), and close it when `stop` is set."""
    stop = asyncio.Event()
    async with aiohttp.ClientSession(
        # A connection kept alive for the next request may be dead by then.
        connector=aiohttp.TCPConnector(force_close=True),
        timeout=aiohttp.ClientTimeout(None, sock_connect=ANSWER_SECONDS, sock_read=ANSWER_SECONDS),
        trust_env=True,
    ) as session:
        ready.set_result((asyncio.get_running_loop(), session, stop))
        await stop.wait()
        # Cancel the tasks before the session closes, or they would retry without one.
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


async def _next_message(socket: aiohttp.ClientWebSocketResponse, seconds: float) -> Message | None:
    while True:
        try:
            message = await socket.receive(seconds)
        except asyncio.TimeoutError:
            return None
        if message.type is aiohttp.WSMsgType.TEXT:
            return cast(Message, json.loads(message.data))
        # Binary messages are preview images.
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise ConnectionLostError("the server closed the connection; it may have stopped")
