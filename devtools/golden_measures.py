"""What a device does with a stream: rounding, waiting, memory and speed."""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

from devtools.paths import REPO

OURS = ("live2diff_core", "nodes")
# Root mean square error of a frame, relative to its float32 frame: twice what a small UNet alone
# makes of rounding, as in tests/host/test_half_precision.py.
BOUNDS = {"float16": 0.08, "bfloat16": 0.24}
SYNCHRONIZING = "synchronizing CUDA operation"


class Feed:
    """An opened stream of random latents on its device, one frame per call.

    Args:
        engine: see `golden.load_engine`.
        model: a ModelPatcher with its memories.
        latent: (h, w).
        steps: T, 1 to 4.
        context: channels of the prompt.
        depth: whether every frame comes with depth.
        guidance: its mode; with all but `none` a prompt is guided away from itself.
    """

    def __init__(
        self,
        engine: SimpleNamespace,
        model: Any,
        latent: tuple[int, int] = (8, 16),
        steps: int = 2,
        context: int = 32,
        depth: bool = False,
        guidance: str = "none",
    ) -> None:
        """Describe the stream; nothing is loaded yet."""
        import torch

        self._draw = torch.Generator().manual_seed(1)
        prompt = [[torch.randn(1, 77, context, generator=self._draw), {}]]
        schedule = engine.sd15_model.host_schedule(model, 4, steps / 4)
        guided = engine.guidance.Guidance(1.6, guidance)
        self._spec = engine.spec.StreamSpec(model, prompt, prompt, schedule, guided, seed=0)
        self._latent, self._depth = latent, depth
        self.session = self._spec.start()

    def __enter__(self) -> Feed:
        """Load the model."""
        self._opened = self._spec.open(self._latent, None).model
        self._opened.__enter__()
        self.session.open(self._opened)
        return self

    def __exit__(self, *error: Any) -> None:
        """Release the model."""
        self._opened.__exit__(*error)

    def frame(self) -> tuple[Any, Any]:
        """Draw a frame and its depth on the device, always the same ones in the same order."""
        import torch

        count = 2 if self._depth else 1
        drawn = torch.randn(count, 4, *self._latent, generator=self._draw).to(self._opened.device)
        return drawn[0], drawn[1] if self._depth else None

    def push(self, frame: tuple[Any, Any] | None = None) -> list[Any]:
        """Push a frame, by default a new one; return x0 of the finished ones."""
        return self.session.push(self._opened, *(frame or self.frame()))


def rounding_error(exact: dict[str, Any], half: dict[str, Any]) -> float:
    """Return the largest root mean square error of a frame, relative to that frame in `exact`.

    Args:
        exact, half: results of a trace by name, frames first; see `golden.run_traces`.
    """
    import torch

    worst = 0.0
    for name in (name for name in exact if name.endswith("x0") or name.startswith("eps")):
        found, expected = (each[name].double().cpu().flatten(1) for each in (half, exact))
        off, whole = (x.square().mean(1) for x in (found - expected, expected))
        error = (off / whole).sqrt().max()
        # A NaN must not pass as a small error.
        worst = max(worst, error.item()) if torch.isfinite(error) else float("inf")
    return worst


@dataclass
class Waits:
    """Calls that waited for the device, by place: in our own code, and in the host's."""

    ours: Counter = field(default_factory=Counter)
    others: Counter = field(default_factory=Counter)

    def add(self, frame: FrameType | None) -> None:
        """Count a call that was made at `frame`."""
        while frame is not None:
            file = Path(frame.f_code.co_filename)
            place = f"{file.name}:{frame.f_lineno} in {frame.f_code.co_name}"
            if file.is_relative_to(REPO) and file.relative_to(REPO).parts[0] in OURS:
                self.ours[place] += 1
                return
            if "comfy" in file.parts:
                self.others[place] += 1
                return
            frame = frame.f_back
        self.others["elsewhere"] += 1

    def verdict(self, what: str) -> tuple[str, bool]:
        """Print who else waited; say in words who of us did, and whether nobody."""
        for place, count in self.others.items():
            print(f"  the host waits {count} times at {place}")
        listed = ", ".join(f"{count} at {place}" for place, count in self.ours.items())
        return f"{what}: {listed or 'none'}", not self.ours


@contextmanager
def noting_waits(set_mode: Callable[[str], object]) -> Iterator[Waits]:
    """Note every call that waits for the device while the block runs.

    The mode "error" would also stop the host's own code, which a node pack cannot change; so it is
    "warn", and each warning is told apart by the innermost line that is ours or the host's.

    Args:
        set_mode: `torch.cuda.set_sync_debug_mode`.
    """
    waits = Waits()

    def note(message: Any, *_: Any, **__: Any) -> None:
        if SYNCHRONIZING in str(message):
            waits.add(sys._getframe(1))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        set_mode("warn")
        try:
            yield waits
        finally:
            set_mode("default")


def memory_over_time(
    push: Callable[[], object], bytes_now: Callable[[], int], early: int, late: int
) -> tuple[int, int]:
    """Push `late` frames; return the most bytes seen around frame `early` and until the end.

    Several frames are looked at, because a feature bank holds more while it takes one in.
    """
    most, seen = 0, 0
    for frame in range(1, late + 1):
        push()
        most = max(most, bytes_now()) if frame > early // 2 else 0
        seen = most if frame == early else seen
    return seen, most


def frames_per_second(
    push: Callable[[], object], wait: Callable[[], object], warm: int, frames: int
) -> float:
    """Push frames to warm up, then measure `frames` more; `wait` returns when all are done."""
    for _ in range(warm):
        push()
    wait()
    start = time.perf_counter()
    for _ in range(frames):
        push()
    wait()
    return frames / (time.perf_counter() - start)
