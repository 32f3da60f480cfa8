"""ComfyUI's websocket, read on a thread with an event loop of its own.

The thread makes it usable where another loop runs already (Playwright's synchronous API does).
Needs aiohttp, which ComfyUI requires.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from typing import Any

import aiohttp

from .errors import ConnectionLostError

GREETING_SECONDS = 60.0
# Waits are cut into such pieces, because on Windows Ctrl-C does not reach a waiting thread.
POLL_SECONDS = 0.5


class MessageReader:
    """The text messages of one websocket, as a context manager."""

    def __init__(self, url: str) -> None:
        """Keep the address; `with` connects."""
        self._url = url
        self._inbox: queue.Queue[dict[str, Any] | BaseException | None] = queue.Queue()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> MessageReader:
        self._thread.start()
        # The server greets with a status message: from then on nothing is missed.
        try:
            if self.receive(GREETING_SECONDS) is None:
                raise ConnectionLostError(
                    f"the server accepts connections but is silent ({self._url})"
                )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, or None after `seconds` of silence; ConnectionLostError at the end."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                message = self._inbox.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(message, BaseException) or message is None:
                reason = message or "it may have stopped"
                raise ConnectionLostError(f"the server closed the connection: {reason}")
            return message
        return None

    def _run(self) -> None:
        self._task = self._loop.create_task(self._read())
        try:
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except (aiohttp.ClientError, OSError) as error:
            self._inbox.put(error)
        finally:
            self._loop.close()

    async def _read(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._url, max_msg_size=0) as ws,
        ):
            async for message in ws:
                # Binary messages are preview images.
                if message.type == aiohttp.WSMsgType.TEXT:
                    self._inbox.put(json.loads(message.data))
        self._inbox.put(None)
