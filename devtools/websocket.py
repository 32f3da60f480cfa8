"""ComfyUI's websocket, read on a thread with an event loop of its own.

The thread makes it usable where another loop runs already (Playwright's synchronous API does).
Run inside the venv: needs aiohttp, which ComfyUI requires.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from typing import Any

import aiohttp

MESSAGE_SECONDS = 600.0


class PromptError(RuntimeError):
    """A prompt that was refused or failed; the text names the nodes and says what they said.

    `traceback` is the failing node's own, as the server printed it, or "".
    """

    def __init__(self, text: str, traceback: str = "") -> None:
        """Keep what the server said."""
        super().__init__(text)
        self.traceback = traceback


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
        self.receive()
        return self

    def __exit__(self, *_: object) -> None:
        if self._task is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)

    def receive(self) -> dict[str, Any]:
        """The next message; PromptError when the connection ended or stays silent too long."""
        try:
            message = self._inbox.get(timeout=MESSAGE_SECONDS)
        except queue.Empty:
            raise PromptError(f"no message from the server for {MESSAGE_SECONDS:.0f} s") from None
        if isinstance(message, BaseException) or message is None:
            raise PromptError(
                f"the server closed the connection: {message or 'it may have stopped'}"
            )
        return message

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
