"""The header of a frame on the live page's websocket; see PROTOCOL.md."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

VERSION = 1
JPEG, H264_KEY, H264_DELTA = 1, 2, 3
WARMING_UP, OF_OTHERS, LAST = 1, 2, 4
_LAYOUT = struct.Struct("<BBHIdiIff")
SIZE = _LAYOUT.size


class FrameHeader(NamedTuple):
    """The fields in their order."""

    kind: int
    flags: int
    sequence: int
    captured: float
    frame: int = -1
    number: int = 0
    server_ms: float = 0.0
    codec_ms: float = 0.0

    def pack(self) -> bytes:
        """Return the header's bytes."""
        return _LAYOUT.pack(VERSION, *self)


def read_header(data: bytes) -> FrameHeader:
    """Read the header of a client's frame.

    Raises:
        ValueError: it is none; the message says why.
    """
    if len(data) <= SIZE:
        raise ValueError(f"a frame has {SIZE} bytes and a picture, but this has {len(data)}")
    version, *fields = _LAYOUT.unpack_from(data)
    header = FrameHeader(*fields)
    if version != VERSION:
        raise ValueError(f"its version is {version} rather than {VERSION}")
    if header.kind not in (JPEG, H264_KEY, H264_DELTA):
        raise ValueError(f"its kind is {header.kind}; see the protocol")
    if not math.isfinite(header.captured):
        raise ValueError("its time is no number")
    return header
