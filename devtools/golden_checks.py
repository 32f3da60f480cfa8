"""The checks of `golden_device` on small models, each a line with its verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from devtools import golden
from devtools.golden_measures import (
    BOUNDS,
    Feed,
    memory_over_time,
    noting_waits,
    rounding_error,
)
from devtools.golden_pictures import Pictures

DTYPES = ("float32", "float16", "bfloat16")
FRAMES, EARLY, WARM = 1000, 100, 24


def check_device(
    engine: SimpleNamespace,
    folders: Sequence[Path],
    device: str,
    dtypes: Sequence[str] | None,
    frames: int = FRAMES,
    early: int = EARLY,
) -> Iterator[tuple[str, bool]]:
    """Yield (what was found, whether it is good) for each check on small models."""
    chosen = tuple(dtypes or DTYPES)
    if "float32" in chosen:
        for folder in folders:
            for name, error in golden.check_folder(engine, folder, device):
                yield f"float32 {folder.name} {name} {error:.2e}", error <= golden.LIMIT
    for folder in folders:
        yield from _check_rounding(engine, folder, device, chosen)
        yield from _check_steady_state(engine, folder, device, frames, early)


def memories(
    engine: SimpleNamespace, folder: Path, device: str, dtype: Any = None
) -> dict[str, tuple[Any, bool]]:
    """Build a folder's model with its memory, by name: (ModelPatcher, whether it reads depth)."""
    plain = golden.build_sd15(folder / "unet.safetensors", device, dtype)
    if (folder / "live2diff.ckpt").is_file():
        motion = engine.live2diff_patch.load_motion_module(str(folder / "live2diff.ckpt"))
        window = engine.window.AttentionWindow()
        return {"live2diff": (engine.live2diff_patch.apply_live2diff(plain, motion, window), True)}
    banks = {kind: engine.bank.BankConfig(kind=kind) for kind in ("merge", "queue")}
    return {
        name: (engine.feature_bank_patch.apply_feature_bank(plain, config), False)
        for name, config in banks.items()
    }


def _check_rounding(
    engine: SimpleNamespace, folder: Path, device: str, dtypes: Sequence[str]
) -> Iterator[tuple[str, bool]]:
    """Compare the traces' frames in half precision with those in float32 on the same device."""
    import torch

    halves = [dtype for dtype in dtypes if dtype in BOUNDS]
    exact = {}
    if halves:
        exact = {name: ours for name, ours, _ in golden.run_traces(engine, folder, device)}
    for dtype in halves:
        for name, ours, _ in golden.run_traces(engine, folder, device, getattr(torch, dtype)):
            error = rounding_error(exact[name], ours)
            said = f"{dtype} {folder.name} {name} {error:.3f} of {BOUNDS[dtype]}"
            yield said, error <= BOUNDS[dtype]


def _check_steady_state(
    engine: SimpleNamespace, folder: Path, device: str, frames: int, early: int
) -> Iterator[tuple[str, bool]]:
    """Look for lines of ours that wait, and for memory that grows."""
    import torch

    cuda = device.startswith("cuda")
    set_mode = torch.cuda.set_sync_debug_mode if cuda else lambda mode: None
    allocated = torch.cuda.memory_allocated if cuda else lambda: 0
    for name, (model, depth) in memories(engine, folder, device).items():
        for guidance in ("full", "self", "initialize"):
            with Feed(engine, model, depth=depth, guidance=guidance) as feed:
                yield _waits_of(f"{name}, guidance {guidance},", feed, set_mode)
        pictures = Pictures(engine, model, device, depth)
        yield from pictures.check(name, WARM, set_mode)
        with Feed(engine, model, depth=depth) as feed:
            yield _waits_of(name, feed, set_mode)
            first, most = memory_over_time(feed.push, allocated, early, frames)
            yield (
                f"{name} bytes at frame {early}: {first}, until frame {frames}: {most}",
                most <= first,
            )


def _waits_of(name: str, feed: Feed, set_mode: Callable[[str], object]) -> tuple[str, bool]:
    """Push frames until the window is full, and look who waits in the next ones."""
    for _ in range(WARM):
        feed.push()
    ready = [feed.frame() for _ in range(WARM)]
    with noting_waits(set_mode) as waits:
        for frame in ready:
            feed.push(frame)
    return waits.verdict(f"{name} waits of ours in {WARM} frames")
