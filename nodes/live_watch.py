"""What a Live Stream looks at between two frames: interrupts, the queue, and its own figures."""

from __future__ import annotations

import time
from urllib.parse import quote

import comfy.model_management
import torch

from ..live2diff_core.live.channel import PAUSED, STARTING, LiveChannel
from .live_queue import others_wait
from .node_text import show_text

PAGE_ADDRESS = "/live2diff/live"
SHOWN_SECONDS = 0.5
# A stream runs at least so long, so that two that let each other go first both get somewhere.
LEAST_SECONDS = 1.0


class LiveWatch:
    """Called between frames: raises on an interrupt, and shows the figures on the node.

    Attributes:
        made_way: whether the run ended because another prompt waits.
    """

    def __init__(self, channel: LiveChannel, node_id: str | None, makes_way: bool) -> None:
        """Watch a run that starts now."""
        self._channel, self._node_id = channel, node_id
        self._makes_way, self.made_way = makes_way, False
        self._started, self._shown = time.monotonic(), 0.0

    def __call__(self) -> bool:
        """Return whether the run should end."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        now = time.monotonic()
        if now - self._shown < SHOWN_SECONDS:
            return False
        self._shown = now
        self._channel.figures.vram_gb = vram_gb()
        self.show()
        self.made_way = self._makes_way and now - self._started >= LEAST_SECONDS and others_wait()
        return self.made_way

    def show(self) -> None:
        """Show the figures on the node."""
        figures = self._channel.figures
        where = f"Live page: {PAGE_ADDRESS}?stream={quote(self._channel.name)}"
        lines = [figures_text(self._channel), where, *figures.notices, *figures.warnings]
        show_text(self._node_id, "\n".join(lines))


def figures_text(channel: LiveChannel) -> str:
    """Describe what a stream does now, in one line."""
    figures = channel.figures
    latency, slow = figures.latency.median(), figures.latency.p95()
    parts = [f"{channel.name}: {channel.state}"]
    if channel.state not in (STARTING, PAUSED) and figures.warmup is not None:
        parts[0] = f"{channel.name}: warming up, {figures.warmup[0]} of {figures.warmup[1]} frames"
    parts.append(f"{figures.fps_in.value:.1f} fps in, {figures.fps_out.value:.1f} out")
    if latency is not None and slow is not None:
        parts.append(f"latency {latency:.0f} ms (95%: {slow:.0f})")
    parts.append(f"{figures.replaced} dropped")
    return ", ".join(parts)


def vram_gb() -> float | None:
    """Return the gigabytes of the device that are in use; None without a GPU."""
    device = comfy.model_management.get_torch_device()
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / 1e9
