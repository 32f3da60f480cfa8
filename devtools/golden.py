"""Check recorded traces of the reference code against the motion module in ComfyUI's UNet.

Runs inside the project's environment, with ComfyUI and this checkout on the import path:
`python3 dev.py golden FOLDER` takes care of both. The folder is laid out as `unet.safetensors`,
`live2diff.ckpt` and any number of `trace-*.safetensors`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LIMIT = 1e-4
UNET_PREFIX = "model.diffusion_model."


def import_host() -> None:
    """Import ComfyUI for the CPU; its command line must be set before anything else is loaded."""
    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        import comfy.cli_args

        comfy.cli_args.args.cpu = True
        import comfy.sd  # noqa: F401  (loads the modules that the engine uses)
    finally:
        sys.argv = argv


def load_engine(name: str = "live2diff_core") -> SimpleNamespace:
    """Import the engine's modules that a trace needs, from the package called `name`."""
    names = ("config", "schedule", "session", "motion_memory", "host_model", "unet_patch")
    return SimpleNamespace(**{n: importlib.import_module(f"{name}.{n}") for n in names})


def build_sd15(path: Path) -> Any:
    """Build a float32 SD1.5 of any widths from LDM weights: a ModelPatcher.

    Args:
        path: safetensors with keys `model.diffusion_model.*`; the configuration is inferred.
    """
    import comfy.model_detection
    import comfy.model_patcher
    import comfy.supported_models
    import safetensors.torch
    import torch

    weights = safetensors.torch.load_file(str(path))
    config = comfy.model_detection.detect_unet_config(weights, UNET_PREFIX)
    model_config = comfy.supported_models.SD15(config)
    model_config.set_inference_dtype(torch.float32, None)
    model = model_config.get_model(weights, "")
    model.load_model_weights(weights, UNET_PREFIX)
    device = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(model, load_device=device, offload_device=device)


class Recorder:
    """Stands before a model and keeps every frame's noise prediction at every step."""

    def __init__(self, model: Any, schedule: Any) -> None:
        """Record calls of `model`, which runs at the levels of `schedule`."""
        self.model, self.schedule = model, schedule
        self.eps: dict[tuple[int, int], Any] = {}

    def __call__(self, x: Any, plan: Any) -> Any:
        """Run the model: [N, C, h, w] to x0, noting eps = (x - sqrt_alpha * x0) / sqrt_beta."""
        denoised = self.model(x, plan)
        for row, before, after in zip(plan.rows, x, denoised, strict=True):
            signal = self.schedule.sqrt_alpha[row.step] * after
            self.eps[row.frame, row.step] = (before - signal) / self.schedule.sqrt_beta[row.step]
        return denoised


def run_trace(engine: SimpleNamespace, model: Any, trace: dict[str, Any], depth: bool) -> dict:
    """Stream a trace's frames, pipelined, and return our tensors under the trace's names."""
    import torch

    timesteps = [int(t) for t in trace["timesteps"]]
    alphas = engine.schedule.linear_beta_alphas_cumprod()[timesteps]
    schedule = engine.schedule.ConsistencySchedule.from_alphas(alphas, timesteps)
    config = engine.unet_patch.applied_motion(model).config
    warmup = config.warmup_frames

    def noise(frame: int, step: int, shape: Any) -> Any:
        if frame < warmup:
            return trace["noise.warmup"][step, frame]
        return trace["noise.stream"][frame - warmup, step]

    prompt = [[trace["prompt"], {}]]
    frames = trace["frames"]
    size = tuple(frames.shape[2:])
    with engine.host_model.HostModel(
        model, prompt, prompt, 1.0, schedule, size, len(frames)
    ) as host:
        recorder = Recorder(host, schedule)
        memory = engine.motion_memory.MotionMemory(config, len(schedule))
        session = engine.session.StreamSession(
            schedule, recorder, noise, memory, host.encode_depth if depth else None
        )
        x0 = torch.cat([session.step(frames, trace["depth"] if depth else None), session.flush()])
    return _named(schedule, recorder.eps, x0, warmup)


def _named(schedule: Any, eps: dict, x0: Any, warmup: int) -> dict:
    """Lay out results as a trace does."""
    import torch

    steps = range(len(schedule))
    first, rest = range(min(warmup, len(x0))), range(warmup, len(x0))
    ours = {name: getattr(schedule, name) for name in ("sqrt_alpha", "sqrt_beta", "c_skip")}
    ours["c_out"] = schedule.c_out
    ours["warmup.x0"] = x0[:warmup]
    for step in steps:
        ours[f"warmup.eps.{step}"] = torch.stack([eps[frame, step] for frame in first])
    if len(rest):
        ours["stream.x0"] = x0[warmup:]
        ours["stream.eps"] = torch.stack(
            [torch.stack([eps[frame, step] for step in steps]) for frame in rest]
        )
    return ours


def max_relative_error(ours: dict, trace: dict) -> float:
    """Worst of max|ours - golden| / max|golden| over all tensors; inf if one is missing."""
    worst = 0.0
    results = [n for n in trace if n.startswith(("warmup.", "stream."))]
    for name in {*ours, *results}:
        if name not in ours or name not in trace or ours[name].shape != trace[name].shape:
            return float("inf")
        error = (ours[name] - trace[name]).abs().max() / trace[name].abs().max()
        # A NaN must not compare as small.
        worst = max(worst, error.item()) if error.isfinite() else float("inf")
    return worst


def check_folder(engine: SimpleNamespace, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield (trace name, max relative error) for each trace of a folder like golden/live2diff."""
    import safetensors.torch
    import torch

    with torch.inference_mode():
        motion = engine.unet_patch.load_motion_module(str(folder / "live2diff.ckpt"))
        config = engine.config.StreamConfig()
        plain = build_sd15(folder / "unet.safetensors")
        model = engine.unet_patch.apply_live2diff(plain, motion, config)
        for path in sorted(folder.glob("trace-*.safetensors")):
            trace = safetensors.torch.load_file(str(path))
            ours = run_trace(engine, model, trace, motion.layout.depth_channels is not None)
            yield path.stem, max_relative_error(ours, trace)


def main() -> int:
    """Print a line per trace; 0 only if there is one and all pass."""
    parser = argparse.ArgumentParser(prog="dev.py golden", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    needed = [folder / "unet.safetensors", folder / "live2diff.ckpt"]
    missing = [str(path) for path in needed if not path.is_file()]
    if missing or not list(folder.glob("trace-*.safetensors")):
        sys.stderr.write(f"No traces to check: {', '.join(missing) or 'trace-*'} not found.\n")
        return 2
    logging.disable(logging.INFO)
    with contextlib.redirect_stdout(sys.stderr):
        import_host()
    failed = False
    for name, error in check_folder(load_engine(), folder):
        verdict = "PASS" if error <= LIMIT else "FAIL"
        failed |= verdict == "FAIL"
        sys.stdout.write(f"{name} {error:.2e} {verdict}\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
