"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class StageSeconds(defaultdict[str, float]):
    """Seconds by stage, of the thread that calls; on a GPU those to queue the work."""

    def __init__(self) -> None:
        """Start without stages."""
        super().__init__(float)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time within the `with` block to a stage, also when it ends with an error."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self[stage] += time.perf_counter() - start


@dataclass
class StageTimes:
    """Busy seconds of each stage; stages run side by side, so their sum may exceed the total.

    They are times of threads. A GPU works on its own: there the stages between "decode" and
    "read back" are the time to queue their work, and "read back" is the time that the encoder's
    thread waits for the device. Where "read back" is near the total, the device is the limit.

    Attributes:
        frames: number of finished frames.
        stages: seconds by name, in the order in which frames pass the stages.
        total: elapsed seconds.
    """

    frames: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    total: float = 0.0

    def table(self) -> str:
        """Format the times for the log, in seconds and in milliseconds per frame."""
        frames = max(self.frames, 1)
        rows = [
            f"  {name:<12}{seconds:9.1f} s {seconds / frames * 1e3:9.1f} ms"
            for name, seconds in {**self.stages, "total": self.total}.items()
        ]
        rate = self.frames / self.total if self.total else 0.0
        return "\n".join(
            [f"{self.frames} frames, {rate:.2f} per second; each stage at work:", *rows]
        )
