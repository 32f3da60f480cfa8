"""The live page's addresses on ComfyUI's own server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import web

from ..live2diff_core.live.channels import CHANNELS
from . import limits
from .connection import Connection
from .jpeg import JpegThreads
from .mjpeg import stream_mjpeg
from .status import list_message
from .tokens import is_page_token, is_watch_token, page_token

ROOT = "/live2diff/live"
PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".json": "application/json",
}
_INDEX, _PLACE = "index.html", b"{{token}}"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# The page's own, in place of the host's, which would let it play no video file.
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def own_origin(handler: Handler) -> Handler:
    """Refuse requests that pages of other origins make."""

    @wraps(handler)
    async def checked(request: web.Request) -> web.StreamResponse:
        if is_foreign(request):
            raise web.HTTPForbidden(text="origin: this address answers its own page only.")
        return await handler(request)

    return checked


def is_foreign(request: web.Request) -> bool:
    """Return whether a browser says that another origin's page makes the request."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    if site not in ("none", "same-origin"):
        return True
    return origin is not None and urlsplit(origin).netloc.lower() != request.host.lower()


class LiveRoutes:
    """The handlers, and what they share."""

    def __init__(self) -> None:
        """Read which files there are: only these are ever served."""
        self._jpeg, self._connections = JpegThreads(), 0
        self._files = {
            path.name: path for path in PAGE.glob("*") if path.suffix in _TYPES and path.is_file()
        }

    def add_to(self, routes: web.RouteTableDef) -> None:
        """Register all addresses."""
        routes.get(ROOT)(own_origin(self.page))
        routes.get(f"{ROOT}/page/{{name}}")(own_origin(self.file))
        routes.get(f"{ROOT}/token")(own_origin(self.token))
        routes.get(f"{ROOT}/streams")(own_origin(self.streams))
        routes.get(f"{ROOT}/socket")(own_origin(self.socket))
        routes.get(f"{ROOT}/{{stream:.+}}.mjpg")(own_origin(self.mjpeg))

    async def page(self, request: web.Request) -> web.StreamResponse:
        """Send the page, with a token of its own.

        It is sent here, because to a response that is returned the host adds its own policy.
        """
        body = self._body(_INDEX).replace(_PLACE, page_token().encode())
        response = web.StreamResponse(headers={**_HEADERS, "Content-Security-Policy": _POLICY})
        response.content_type, response.charset = "text/html", "utf-8"
        response.content_length = len(body)
        await response.prepare(request)
        await response.write_eof(body)
        return response

    async def file(self, request: web.Request) -> web.Response:
        """Serve one of the page's files."""
        name = request.match_info["name"]
        if name == _INDEX:
            raise web.HTTPNotFound()
        body = self._body(name)
        return web.Response(
            body=body, content_type=_TYPES[self._files[name].suffix], headers=_HEADERS
        )

    async def token(self, request: web.Request) -> web.Response:
        """Give a page a new token, for when the server was started again."""
        return web.json_response({"token": page_token()}, headers=_HEADERS)

    async def streams(self, request: web.Request) -> web.Response:
        """List the streams."""
        if not is_page_token(request.headers.get("X-Live2Diff-Token")):
            raise web.HTTPForbidden(text="token: reload the page.")
        return web.json_response(list_message(), headers=_HEADERS)

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """Talk with a page."""
        self._count()
        try:
            socket = web.WebSocketResponse(
                heartbeat=limits.HEARTBEAT_SECONDS,
                max_msg_size=limits.FRAME_BYTES,
                compress=False,
            )
            await socket.prepare(request)
            await Connection(socket, self._jpeg).run()
            return socket
        finally:
            self._connections -= 1

    async def mjpeg(self, request: web.Request) -> web.StreamResponse:
        """Send a stream to a player."""
        stream = request.match_info["stream"]
        if not is_watch_token(request.query.get("token", ""), stream):
            raise web.HTTPForbidden(text="token: copy the address from the live page once more.")
        self._count()
        try:
            return await stream_mjpeg(request, CHANNELS.get(stream), self._jpeg)
        finally:
            self._connections -= 1
            CHANNELS.tidy()

    def _count(self) -> None:
        if self._connections >= limits.CONNECTIONS:
            raise web.HTTPServiceUnavailable(text="full: too many connections; close some.")
        self._connections += 1

    def _body(self, name: str) -> bytes:
        if name not in self._files:
            raise web.HTTPNotFound()
        return self._files[name].read_bytes()


def register_routes(routes: web.RouteTableDef) -> None:
    """Add the live page to ComfyUI's server."""
    LiveRoutes().add_to(routes)
