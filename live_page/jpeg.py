"""JPEG in and out, in threads: a frame is decoded once, and a result is encoded once for all."""

from __future__ import annotations

import asyncio
import io
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..live2diff_core.live.frames import LiveResult, Picture
from .limits import SIDE

QUALITY = 85
_RESULTS_KEPT = 4
Made = TypeVar("Made")


class PictureError(ValueError):
    """Bytes that are no picture which can be taken; the message says why."""


class Encoded(NamedTuple):
    """A picture as JPEG, and the seconds that it took to encode it."""

    data: bytes
    seconds: float


class JpegThreads:
    """The threads that decode and encode; its methods belong to the event loop."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="live2diff-jpeg")
        self._results: OrderedDict[int, tuple[LiveResult, asyncio.Task[Encoded]]] = OrderedDict()

    async def decode(self, data: memoryview) -> Picture:
        """Decode a client's frame.

        Raises:
            PictureError: it is no JPEG, truncated, or too large.
        """
        return await self.run(decoded, data)

    async def run(self, call: Callable[..., Made], *arguments: Any) -> Made:
        """Do other work in the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    async def encode(self, result: LiveResult) -> Encoded:
        """Encode a result; those who ask for the same one share the work."""
        key = id(result)
        if key not in self._results:
            task = asyncio.ensure_future(self._encode(result.picture))
            # With the result itself, so that its id is not used again.
            self._results[key] = (result, task)
            while len(self._results) > _RESULTS_KEPT:
                self._results.popitem(last=False)
        return await asyncio.shield(self._results[key][1])

    async def _encode(self, picture: Picture) -> Encoded:
        return await self.run(encoded, picture)


def decoded(data: bytes | memoryview) -> Picture:
    """Decode a JPEG to uint8 [H, W, 3].

    Raises:
        PictureError: see `JpegThreads.decode`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
            if max(picture.size) > SIDE or min(picture.size) < 8:
                size = "{}x{}".format(*picture.size)
                raise PictureError(f"it is {size} pixels; sides go from 8 to {SIDE}")
            return np.array(picture.convert("RGB"))
    except UnidentifiedImageError as error:
        raise PictureError("it is no JPEG") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise PictureError(str(error)) from error


def encoded(picture: Picture) -> Encoded:
    """Encode uint8 [H, W, 3]."""
    start, file = time.perf_counter(), io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=QUALITY)
    return Encoded(file.getvalue(), time.perf_counter() - start)
