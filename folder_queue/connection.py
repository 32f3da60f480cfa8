"""HTTP and websockets to one ComfyUI server, for callers that wait for each answer.

The one aiohttp session lives on a thread with its own event loop. The caller therefore needs no
event loop, and may have another one running, as Playwright's synchronous API does.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Generator
from concurrent import futures
from contextlib import suppress
from typing import Any, BinaryIO, TypeVar

import aiohttp

from .answers import Answer, Message, as_object, parse_json, parse_message
from .backoff import Backoff
from .errors import (
    AnswerError,
    ConnectionLostError,
    NonsenseError,
    PromptError,
    ServerGoneError,
    SilentError,
)

T = TypeVar("T")
C = TypeVar("C", bound="Connection")
ANSWER_SECONDS = 600.0
# A document is there within this time, as a whole.
DOCUMENT = aiohttp.ClientTimeout(60.0)
PING = aiohttp.ClientTimeout(5.0)
CLOSE_SECONDS = 10.0
# A websocket is closed within this time, or without the server.
HANG_UP_SECONDS = 2.0
# Longer documents and messages are no ComfyUI's.
MOST_BYTES = 1 << 28
# Waits are split into polls, because on Windows Ctrl-C does not interrupt a waiting thread.
POLL_SECONDS = 0.5
CHUNK_BYTES = 1 << 20
# A proxy's status codes while the server behind it is down.
AWAY = (502, 503, 504)
LOST = (aiohttp.ClientError, ConnectionError, futures.CancelledError)


class Connection:
    """Sends requests to the server at `url`; several threads may use it at the same time.

    `close` ends the session and its thread, and so does the end of a `with` block or the garbage
    collection of an unclosed connection. The interpreter does not wait for the thread at exit.
    """

    def __init__(self, url: str, sleep: Callable[[float], None] = time.sleep) -> None:
        """Start the thread; nothing is connected yet. Pauses between tries are left to `sleep`."""
        self.url = url.rstrip("/")
        self.sleep = sleep
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
        is an error, ConnectionLostError when there is none or it is shorter than announced, as its
        kind SilentError when it takes too long.
        """

        async def exchange() -> Answer:
            async with self._session.request(method, self.url + path, **options) as reply:
                if reply.status in AWAY:
                    raise ConnectionLostError(f"{self.url} is away ({reply.status})")
                if reply.status >= 400:
                    body = await _document(path, reply)
                    raise AnswerError(path, reply.status, body.decode(errors="replace"))
                if into is None:
                    return Answer(reply.content_length, await _document(path, reply))
                async for piece in reply.content.iter_chunked(CHUNK_BYTES):
                    into.write(piece)
                return Answer(reply.content_length, b"")

        return self._wait_for(exchange())

    def get(self, path: str, **options: Any) -> Any:
        """GET a JSON document, for example "/object_info/KSampler"; raises as `ask` does."""
        return parse_json(path, self.ask("GET", path, **{"timeout": DOCUMENT, **options}).body)

    def post(self, path: str, document: dict[str, Any]) -> bytes:
        """POST a JSON document and return the body of the answer; raises as `ask` does."""
        return self.ask("POST", path, json=document, timeout=DOCUMENT).body

    def listen(
        self, path: str, seconds: float, greeting: float | None = None
    ) -> Generator[Message | None, None, None]:
        """Open a websocket and yield its messages, and None after every `seconds` of silence.

        For the opening and the first message it waits `greeting` seconds, if given. Closing the
        generator closes the websocket. Raises ConnectionLostError if the server closes, AnswerError
        if it opens none, NonsenseError for what is no message.
        """
        first = seconds if greeting is None else greeting

        async def connect() -> aiohttp.ClientWebSocketResponse:
            opening = self._session.ws_connect(self.url + path, max_msg_size=MOST_BYTES)
            return await asyncio.wait_for(opening, first)

        socket = self._wait_for(connect())
        try:
            yield self._wait_for(_next_message(socket, first))
            while True:
                yield self._wait_for(_next_message(socket, seconds))
        finally:
            if self._end.alive:
                # A server that is lost now must not hide why the socket is closed; and one that
                # goes on to talk must not keep it open.
                with suppress(ConnectionLostError):
                    self._wait_for(asyncio.wait_for(socket.close(), HANG_UP_SECONDS))

    def is_up(self) -> bool:
        """Return whether a ComfyUI answers."""
        return not self.why_down()

    def why_down(self) -> str:
        """Return why no ComfyUI answers, or "" if one does."""
        path = "/system_stats"
        try:
            answer = as_object(path, self.get(path, timeout=PING))
            if "system" not in answer:
                raise NonsenseError(path, "the state of a system", answer)
        # A ValueError is an address that is none.
        except (PromptError, ValueError) as error:
            return str(error)
        return ""

    def wait_until_up(self, seconds: float) -> None:
        """Wait until the server answers. Raises ServerGoneError after `seconds`."""
        deadline = time.monotonic() + seconds
        backoff = Backoff(self.sleep)
        while reason := self.why_down():
            left = deadline - time.monotonic()
            if left <= 0:
                raise ServerGoneError(
                    f"{self.url} did not come back within {seconds:.0f} s: {reason}"
                )
            backoff.wait(left)

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
        except aiohttp.ClientResponseError as error:
            raise self._refused(error) from error
        except asyncio.TimeoutError as error:
            raise SilentError(f"no answer from {self.url} in the time allowed") from error
        except LOST as error:
            reason = str(error) or type(error).__name__
            raise ConnectionLostError(f"no answer from {self.url}: {reason}") from error
        finally:
            future.cancel()

    def _refused(self, error: aiohttp.ClientResponseError) -> PromptError:
        """Describe an answer that is no HTTP, leads in circles, or opens no websocket."""
        if error.status in AWAY:
            return ConnectionLostError(f"{self.url} is away ({error.status})")
        path = error.request_info.url.path
        if isinstance(error, aiohttp.TooManyRedirects):
            return AnswerError(path, error.history[-1].status, "redirections in a circle")
        return AnswerError(path, error.status, error.message)


async def _document(path: str, reply: aiohttp.ClientResponse) -> bytes:
    """Read the whole body of an answer."""
    body = bytearray()
    async for piece in reply.content.iter_chunked(CHUNK_BYTES):
        body += piece
        if len(body) > MOST_BYTES:
            raise NonsenseError(path, f"at most {MOST_BYTES} bytes", bytes(body[:CHUNK_BYTES]))
    return bytes(body)


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
            return parse_message("/ws", message.data)
        # Binary messages are preview images.
        if message.type is not aiohttp.WSMsgType.BINARY:
            raise ConnectionLostError("the server closed the connection; it may have stopped")
