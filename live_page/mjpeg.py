"""A stream as MJPEG over HTTP, which OBS, VLC and browsers play as it is."""

from __future__ import annotations

import asyncio

from aiohttp import web

from ..live2diff_core.live.channel import LiveChannel
from ..live2diff_core.live.frames import LiveResult
from .follower import Follower
from .jpeg import JpegThreads

_BOUNDARY = "live2diff"
# Players give up where nothing comes, so the last picture comes again.
_AGAIN_SECONDS = 5.0


async def stream_mjpeg(
    request: web.Request, channel: LiveChannel, jpeg: JpegThreads
) -> web.StreamResponse:
    """Send results, the newest each time, until the player is gone.

    The frames that are shown as they came, during the warm-up, are never sent.
    """
    response = web.StreamResponse(
        headers={
            "Content-Type": f"multipart/x-mixed-replace; boundary={_BOUNDARY}",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
    )
    await response.prepare(request)
    follower = Follower()
    channel.join(follower)
    try:
        await _send(response, follower, channel.latest, jpeg)
    except ConnectionError:
        pass  # The player is gone.
    finally:
        channel.leave(follower)
    return response


async def _send(
    response: web.StreamResponse, follower: Follower, last: LiveResult | None, jpeg: JpegThreads
) -> None:
    while True:
        if last is not None:
            data = (await jpeg.encode(last)).data
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
            await response.write(f"{head}\r\n\r\n".encode() + data + b"\r\n")
        last = await _next(follower) or last


async def _next(follower: Follower) -> LiveResult | None:
    """Wait for a result; None when none has come for a while."""
    while True:
        try:
            await asyncio.wait_for(follower.wake.wait(), _AGAIN_SECONDS)
        except asyncio.TimeoutError:
            return None
        follower.wake.clear()
        while follower.take_text() is not None:
            pass  # A player has no use for messages.
        result = follower.take_result()
        if result is not None and not result.warming_up:
            return result
