"""What a run of a live stream measures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .meter import Rate, Times


class Figures:
    """What a run measures, for its node and for those who follow it."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.fps_in, self.fps_out = Rate(), Rate()
        self.latency, self.server, self.codec = Times(), Times(), Times()
        self.finished = self.frame = self.replaced = self.inside = 0
        self.warmup: tuple[int, int] | None = None
        self.vram_gb: float | None = None
        self.recording: Mapping[str, Any] | None = None
        # Of the stream itself, and of its sources and outputs.
        self.notices: list[str] = []
        self.warnings: list[str] = []
