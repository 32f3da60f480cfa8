"""Check recorded traces of StreamingT2V through the nodes' own loaders, samplers and streams.

A trace may hold fewer tensors than another, and other sizes, steps and chunks; a tensor whose name
ends in `_every4` holds every fourth pixel.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from devtools import golden
from devtools.golden_t2v_runs import CHECKPOINT, ENHANCER, RUNS, Found

MAWE = "trace-mawe.safetensors"
_EVERY = "_every4"
_MODULES = (
    *("appearance", "blending", "denoiser", "enhancer", "enhancer_file", "enhancer_schedule"),
    *("host_parts", "long_video", "sampling", "spec"),
)


def is_folder(folder: Path) -> bool:
    """Return whether traces of StreamingT2V lie in a folder."""
    return any((folder / name).is_file() for name in (CHECKPOINT, ENHANCER, MAWE))


def load_engine(name: str) -> SimpleNamespace:
    """Import the engine's modules that the traces need, from the package `name`."""
    found = {each: importlib.import_module(f"{name}.streamingt2v.{each}") for each in _MODULES}
    mawe = importlib.import_module(f"{name}.metrics.mawe")
    flow = importlib.import_module(f"{name}.metrics.flow")
    return SimpleNamespace(**found, mawe=mawe, flow=flow)


def trace_folders(folder: Path) -> list[Path]:
    """List the folders of traces of StreamingT2V at `folder`: itself, or those in it."""
    places = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    return [place for place in places if is_folder(place) and golden.traces(place)]


def print_errors(folders: list[Path]) -> bool:
    """Check all traces, print a line for each, and return whether all pass."""
    engine, passed = load_engine("live2diff_core"), True
    for folder in folders:
        for name, error in check_folder(engine, folder):
            passed &= golden.print_error(f"{folder.name} {name}", error)
    return passed


def check_folder(engine: SimpleNamespace, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield (trace name, max relative error) for each trace of a folder that can be checked."""
    import torch
    from safetensors.torch import load_file

    loaded: dict[str, Any] = {}
    for path in sorted(folder.glob("trace-*.safetensors")):
        run = RUNS.get(path.stem)
        if run is None:
            yield path.stem, float("inf")
            continue
        with torch.inference_mode():
            trace = load_file(str(path))
            yield path.stem, largest_error(run(engine, folder, trace, loaded), trace)


def largest_error(found: Found, trace: dict[str, Any]) -> float:
    """Return the largest max|ours - golden| / max|golden|; inf if nothing could be compared.

    What the trace does not hold is passed over; what it holds beyond its inputs must be found.
    """
    worst, seen = 0.0, set()
    for name, ours in found:
        for key in (name, name + _EVERY):
            if key in trace:
                seen.add(key)
                cut = ours[..., ::4, ::4] if key.endswith(_EVERY) else ours
                worst = max(worst, _error(cut, trace[key]))
    missed = {name for name in trace if name not in seen and not _is_input(name)}
    return float("inf") if missed or not seen else worst


def _error(ours: Any, golden: Any) -> float:
    if tuple(ours.shape) != tuple(golden.shape):
        return float("inf")
    golden = golden.double()
    error = (ours.cpu().double() - golden).abs().max() / golden.abs().max().clamp(min=1e-30)
    return error.item() if error.isfinite() else float("inf")


def _is_input(name: str) -> bool:
    inputs = ("text.", "clip.", "y", "y_neg", "x", "timesteps", "noise", "z", "unet.x", "unet.t")
    parts = ("offsets", "brownian.", "cond_frames_u8", "anchor_u8", "video_u8", "flows", "context")
    named = name in inputs or name.startswith((*parts, "text.", "clip."))
    return named or ".noise" in name or ".variance_noise." in name or name.endswith("_u8")
