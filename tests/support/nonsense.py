"""What a server may answer that no ComfyUI would, for tests/support/nonsense_server.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import WSMsgType, web

# "ws" is the handshake, "greeting" the first message, "message" the one after a prompt was queued.
ENDPOINTS = (
    *("head", "upload", "ws", "greeting", "queue", "prompt", "message", "history", "view"),
    *("system_stats", "cancel"),
)
DOCUMENTS = ("upload", "queue", "prompt", "history")
DEEP = "[" * 5000 + "]" * 5000
# JSON of every kind, and some that Python reads though it is none.
VALUES = (
    *("null", "true", "0", "-1.5", "1e999", "NaN", '""', '"text"', '"\\ud800"', "[]", "[[]]"),
    *("[null]", "{}", '{"a": 1}', '{"error": "x"}', '{"": {"": []}}', DEEP),
)
NO_TEXT = b"\xff\xfe\x00"
NOT_JSON = (b"", b"<html>", NO_TEXT, b"{", b"9" * 5000, b'{"a": 1} x')


@dataclass(frozen=True)
class Nonsense:
    """What comes at one endpoint for one video instead of the truth.

    `answer` gets the request and the true document, and returns the response; for "greeting" and
    "message" it gets the websocket.
    """

    endpoint: str
    name: str
    answer: Callable[[Any, Any], Awaitable[web.StreamResponse | None]]


def document(endpoint: str, text: str | bytes, status: int = 200) -> Nonsense:
    """Return a document, JSON or not, in place of the true one, whether asked for or sent."""
    body = text.encode() if isinstance(text, str) else text

    async def answer(target: Any, truth: Any) -> web.StreamResponse | None:
        if isinstance(target, web.WebSocketResponse):
            await target.send_frame(body, WSMsgType.TEXT)
            return None
        return web.Response(body=body, status=status, content_type="application/json")

    return Nonsense(endpoint, f"{status} {body[:20]!r}", answer)


def mutants(endpoint: str, truth: Any, values: tuple[Any, ...]) -> Iterator[Nonsense]:
    """Yield the true document with each of its parts replaced by each value, or taken away.

    `truth` is an example; the parts are those of the document that the server would answer.
    """
    for path in paths(truth):
        yield Nonsense(endpoint, f"without {path}", _mutation(path, _dropped))
        for value in values:
            yield Nonsense(endpoint, f"{path} = {value!r}", _mutation(path, lambda _, v=value: [v]))


def paths(document: Any, base: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Yield where the parts of a document are, as positions: keys may differ."""
    parts = list(document.values()) if isinstance(document, dict) else document
    for at, part in enumerate(parts if isinstance(parts, list) else []):
        yield (*base, at)
        yield from paths(part, (*base, at))


def _dropped(_: Any) -> list[Any]:
    return []


def _mutation(path: tuple[int, ...], change: Callable[[Any], list[Any]]) -> Any:
    """Return an answer that is the truth with the part at `path` replaced by `change` of it."""

    def changed(document: Any, path: tuple[int, ...]) -> list[Any]:
        if not path:
            return change(document)
        items = list(document.items()) if isinstance(document, dict) else list(enumerate(document))
        if path[0] >= len(items):
            return [document]
        key, part = items[path[0]]
        items[path[0] : path[0] + 1] = [(key, each) for each in changed(part, path[1:])]
        whole = dict(items) if isinstance(document, dict) else [each for _, each in items]
        return [whole]

    async def answer(target: Any, truth: Any) -> web.StreamResponse | None:
        (said,) = changed(truth, path)
        if isinstance(target, web.WebSocketResponse):
            await target.send_json(said)
            return None
        return web.json_response(said)

    return answer


def status(endpoint: str, code: int) -> Nonsense:
    """Return an HTTP status; a redirection leads back to the same address."""

    async def answer(request: web.Request, _: Any) -> web.StreamResponse:
        return web.Response(status=code, headers={"Location": str(request.rel_url)}, text="no")

    return Nonsense(endpoint, str(code), answer)


def closes(endpoint: str, sent: bytes = b"") -> Nonsense:
    """Send some bytes, or none, and close the connection."""

    async def answer(target: Any, _: Any) -> web.StreamResponse | None:
        if isinstance(target, web.WebSocketResponse):
            await target.close()
            return None
        if sent:
            target.transport.write(sent)
        target.transport.close()
        return web.Response()

    return Nonsense(endpoint, f"closes after {sent[:30]!r}", answer)


def silent(endpoint: str, seconds: float = 60.0) -> Nonsense:
    """Answer nothing for long."""

    async def answer(*_: Any) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return web.Response()

    return Nonsense(endpoint, "silent", answer)
