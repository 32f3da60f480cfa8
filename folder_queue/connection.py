"""HTTP to one ComfyUI server, with failures told apart by what to do about them."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import ConnectionLostError, PromptError, ServerGoneError

ANSWER_SECONDS = 600.0
PING_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
# What a proxy answers while the server behind it is away.
AWAY = (502, 503, 504)
_LOST = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException)


class AnswerError(PromptError):
    """An answer that is an error: its HTTP `status` and its `body`."""

    def __init__(self, path: str, status: int, body: str) -> None:
        """Keep the answer."""
        super().__init__(f"the server answered {path} with {status}: {body.strip()[:300]}")
        self.status = status
        self.body = body


class Connection:
    """Requests to the server at `url`."""

    def __init__(self, url: str) -> None:
        """Keep the address; nothing is connected yet."""
        self.url = url.rstrip("/")

    @contextmanager
    def open(
        self,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: dict[str, str] | None = None,
        *,
        method: str | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> Iterator[http.client.HTTPResponse]:
        """The server's answer, open for reading.

        Raises:
            AnswerError: the answer is an error.
            ConnectionLostError: there is none, or it broke off while it was read.
        """
        request = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as reply:
                yield reply
        except urllib.error.HTTPError as error:
            if error.code in AWAY:
                raise ConnectionLostError(f"{self.url} is away ({error.code})") from error
            text = error.read().decode(errors="replace")
            raise AnswerError(path, error.code, text) from error
        except _LOST as error:
            reason = getattr(error, "reason", None) or error
            raise ConnectionLostError(f"no answer from {self.url}: {reason}") from error

    def get(self, path: str, timeout: float = ANSWER_SECONDS) -> Any:
        """GET a JSON document, for example `/object_info/KSampler`."""
        with self.open(path, timeout=timeout) as reply:
            return json.load(reply)

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        """POST a JSON document and return the answer as it is."""
        headers = {"Content-Type": "application/json"}
        with self.open(path, json.dumps(body).encode(), headers) as reply:
            return reply.read()

    def is_up(self) -> bool:
        """Whether a ComfyUI answers."""
        try:
            return "system" in self.get("/system_stats", PING_SECONDS)
        except (PromptError, ValueError, TypeError):
            return False

    def wait_until_up(self, seconds: float) -> None:
        """Ask again and again, ever more rarely; ServerGoneError after `seconds` in vain."""
        deadline = time.monotonic() + seconds
        pause = FIRST_PAUSE
        while not self.is_up():
            left = deadline - time.monotonic()
            if left <= 0:
                raise ServerGoneError(f"{self.url} did not come back within {seconds:.0f} s")
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
