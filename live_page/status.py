"""What those who follow a stream are told of it."""

from __future__ import annotations

from typing import Any

from ..live2diff_core.live.channel import LiveChannel
from ..live2diff_core.live.channels import CHANNELS
from ..live2diff_core.live.frames import FrameCount


def status_message(channel: LiveChannel, count: FrameCount) -> dict[str, Any]:
    """Return the status of a stream, with what became of one client's frames."""
    figures = channel.figures
    warmup = figures.warmup and {"done": figures.warmup[0], "frames": figures.warmup[1]}
    width, height = channel.size.size or (0, 0)
    return {
        "status": {
            "state": channel.state,
            "warmup": warmup,
            "sender": channel.has_sender,
            "watchers": channel.listeners - channel.has_sender,
            "fps_in": round(figures.fps_in.value, 1),
            "fps_out": round(figures.fps_out.value, 1),
            "latency_ms": _rounded(figures.latency.median()),
            "latency_ms_p95": _rounded(figures.latency.p95()),
            "server_ms": _rounded(figures.server.median()),
            "codec_ms": _rounded(figures.codec.median()),
            "received": count.received,
            "dropped": count.dropped,
            "finished": figures.finished,
            "inside": figures.inside,
            "frame": figures.frame,
            "vram_gb": _rounded(figures.vram_gb),
            "recording": figures.recording,
            "notices": [*figures.notices, *figures.warnings],
            "source": channel.source,
            "width": width,
            "height": height,
        }
    }


def list_message() -> dict[str, Any]:
    """Return the list of streams."""
    streams = []
    for channel in CHANNELS.known():
        width, height = channel.size.size or (0, 0)
        streams.append(
            {
                "name": channel.name,
                "state": channel.state,
                "source": channel.source,
                "sender": channel.has_sender,
                "watchers": channel.listeners - channel.has_sender,
                "width": width,
                "height": height,
            }
        )
    return {"streams": streams}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
