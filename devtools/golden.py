"""Check recorded traces of the reference codes against ComfyUI's UNet with a memory applied.

Runs inside the project's environment, with ComfyUI and this checkout on the import path:
`python3 dev.py golden FOLDER` takes care of both. In any other environment that has torch,
`python devtools/golden.py FOLDER` does the same with ComfyUI on PYTHONPATH. With `--device cuda`
it also checks what only a GPU shows; see `golden_device`.

A folder holds `unet.safetensors` and any number of `trace-*.safetensors`; with `live2diff.ckpt`
beside them they are traces of Live2Diff, without it traces of StreamV2V. With `streaming_t2v.ckpt`,
`enhancer_unet.safetensors` or a trace of MAWE, they are traces of StreamingT2V, see `golden_t2v`. A
folder of such folders is checked whole.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LIMIT = 1e-4
UNET_PREFIX = "model.diffusion_model."
MODULES = {
    "background": "run.background",
    "bank": "feature_bank.bank",
    "bank_memory": "feature_bank.memory",
    "feature_bank_patch": "feature_bank.patch",
    "guidance": "stream.guidance",
    "host_model": "host.model",
    "live2diff_patch": "live2diff.patch",
    "memory": "stream.memory",
    "schedule": "stream.schedule",
    "sd15_model": "host.sd15",
    "session": "stream.session",
    "spec": "run.spec",
    "call_plan": "stream.call_plan",
    "window": "live2diff.window",
}


def import_host(cpu: bool = True, **options: Any) -> None:
    """Import ComfyUI for the CPU or its own device.

    Args:
        cpu: whether it is to use the CPU alone.
        options: its other command-line options, which must be set before its modules load.
    """
    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        import comfy.cli_args

        vars(comfy.cli_args.args).update(cpu=cpu, **options)
        import comfy.sd  # noqa: F401  (loads the modules that the engine uses)
    finally:
        sys.argv = argv


def load_engine(name: str = "live2diff_core") -> SimpleNamespace:
    """Import the engine's modules that a trace needs, from the package `name`."""
    return SimpleNamespace(
        **{n: importlib.import_module(f"{name}.{path}") for n, path in MODULES.items()}
    )


def build_sd15(path: Path, device: str = "cpu", dtype: Any = None) -> Any:
    """Build the ModelPatcher of an SD1.5 of any widths from LDM weights.

    Args:
        path: safetensors with keys `model.diffusion_model.*`; the configuration is inferred.
        device: where it runs; it waits on the CPU.
        dtype: in which it computes; by default float32.
    """
    import comfy.model_detection
    import comfy.model_patcher
    import comfy.supported_models
    import safetensors.torch
    import torch

    weights = safetensors.torch.load_file(str(path))
    config = comfy.model_detection.detect_unet_config(weights, UNET_PREFIX)
    model_config = comfy.supported_models.SD15(config)
    model_config.set_inference_dtype(dtype or torch.float32, None)
    model = model_config.get_model(weights, "")
    model.load_model_weights(weights, UNET_PREFIX)
    return comfy.model_patcher.CoreModelPatcher(
        model, load_device=torch.device(device), offload_device=torch.device("cpu")
    )


class Recorder:
    """Wraps a model and records every frame's noise prediction at every step."""

    def __init__(self, model: Any, schedule: Any) -> None:
        """Record calls of `model`, whose noise levels are those of `schedule`."""
        self.model, self.schedule = model, schedule
        self.eps: dict[tuple[int, int], Any] = {}

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the model that a session uses."""
        return getattr(self.model, name)

    def __call__(self, x: Any, plan: Any) -> Any:
        """Predict x0 from x [N, C, h, w]; record eps = (x - sqrt_alpha * x0) / sqrt_beta."""
        denoised = self.model(x, plan)
        for row, before, after in zip(plan.rows, x, denoised, strict=True):
            signal = self.schedule.sqrt_alpha[row.step] * after
            self.eps[row.frame, row.step] = (before - signal) / self.schedule.sqrt_beta[row.step]
        return denoised


def run_live2diff(engine: SimpleNamespace, model: Any, trace: dict[str, Any], depth: bool) -> dict:
    """Stream a trace's frames, pipelined, and return the results under the trace's names."""
    import torch

    timesteps = [int(t) for t in trace["timesteps"]]
    alphas = engine.schedule.linear_beta_alphas_cumprod()[timesteps]
    schedule = engine.schedule.ConsistencySchedule.from_alphas(alphas, timesteps)
    (applied,) = engine.host_model.applied_memories(model).values()
    warmup = applied.window.warmup_frames

    def noise(frame: int, step: int, _shape: Any) -> Any:
        if frame < warmup:
            return trace["noise.warmup"][step, frame]
        return trace["noise.stream"][frame - warmup, step]

    frames, hints = (trace[name].to(model.load_device) for name in ("frames", "depth"))
    with _opened(engine, model, trace, schedule, frames) as host:
        recorder = Recorder(host, schedule)
        steps = {"positive": len(schedule), "negative": 0}
        memory = engine.memory.MemorySet({applied.name: applied.start(steps, seed=0)})
        session = engine.session.StreamSession(schedule, noise, memory)
        session.open(host)
        finished = []
        for frame, hint in zip(frames, hints, strict=True):
            finished += session.push(recorder, frame, hint if depth else None)
        finished += session.drain(recorder)
    return _named(schedule, recorder.eps, torch.stack(finished), warmup)


def _opened(
    engine: SimpleNamespace, model: Any, trace: dict[str, Any], schedule: Any, frames: Any
) -> Any:
    prompt = [[trace["prompt"], {}]]
    spec = engine.spec.StreamSpec(model, prompt, prompt, schedule, engine.guidance.Guidance(), 0)
    return spec.open(tuple(frames.shape[-2:]), len(frames)).model


def run_streamv2v(engine: SimpleNamespace, plain: Any, trace: dict[str, Any], config: Any) -> dict:
    """Run a trace's inputs with and without the bank; return eps [F, T, C, h, w] by its names."""
    import torch

    timesteps = [int(t) for t in trace["timesteps"]]
    sigmas = plain.get_model_object("model_sampling").sigmas.cpu().double()[timesteps]
    schedule = engine.schedule.ConsistencySchedule.from_alphas(1 / (sigmas**2 + 1), timesteps)
    banked = engine.feature_bank_patch.apply_feature_bank(plain, config)
    (applied,) = engine.memory.applied_memories(banked).values()
    order = recorded_order(engine, plain, trace, config)
    steps = {"positive": len(schedule), "negative": 0}
    memory = engine.bank_memory.BankMemory(config, order, applied.layers, steps)
    together = engine.memory.MemorySet({applied.name: memory})
    results = {}
    for name, model, remembers in (("eps_no_bank", plain, None), ("eps", banked, together)):
        with _opened(engine, model, trace, schedule, trace["x"]) as host:
            recorder = Recorder(host, schedule)
            if remembers is not None:
                host.open_memory(remembers)
            for frame, x in enumerate(trace["x"].to(host.device)):
                _call(engine, recorder, x, frame, remembers)
        shape = trace["x"].shape
        results[name] = torch.stack(list(recorder.eps.values())).view(shape)
    return results


def _call(engine: SimpleNamespace, model: Any, x: Any, frame: int, memory: Any) -> None:
    """Run one frame at all steps in one call, as the traces do."""
    rows = [engine.call_plan.Row(frame, step) for step in range(len(x))]
    groups = [range(frame, frame + 1)] * len(x)
    model(x, engine.call_plan.plan_call(rows, x.device, memory=memory, groups=groups))
    if memory is not None:
        memory.commit()


def recorded_order(engine: SimpleNamespace, model: Any, trace: dict[str, Any], config: Any) -> Any:
    """Return a function that looks up a trace's random token orders, recorded for each merge."""
    unet = model.model.diffusion_model
    layers = [
        f"{part}.{number}.0"
        for part, number in (a.block for a in engine.feature_bank_patch.self_attentions(unet))
    ]

    def order(frame: int, step: int, layer: str, count: int) -> Any:
        merge = frame // config.interval - 1
        recorded = trace[f"perm.{merge * len(layers) + layers.index(layer):03}"][step]
        assert len(recorded) == count
        return recorded.long()

    return order


def _named(schedule: Any, eps: dict, x0: Any, warmup: int) -> dict:
    """Arrange the results under the names and in the shapes of a trace."""
    import torch

    steps = range(len(schedule))
    first, rest = range(min(warmup, len(x0))), range(warmup, len(x0))
    scales = ("sqrt_alpha", "sqrt_beta", "c_skip", "c_out")
    ours = {name: torch.tensor(getattr(schedule, name)) for name in scales}
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
    """Return the largest max|ours - golden| / max|golden| of all tensors; inf if one is missing."""
    worst = 0.0
    results = [n for n in trace if n.startswith(("warmup.", "stream.", "eps"))]
    for name in {*ours, *results}:
        if name not in ours or name not in trace or ours[name].shape != trace[name].shape:
            return float("inf")
        error = (ours[name].cpu() - trace[name]).abs().max() / trace[name].abs().max()
        # A NaN must not pass as a small error.
        worst = max(worst, error.item()) if error.isfinite() else float("inf")
    return worst


def check_folder(
    engine: SimpleNamespace, folder: Path, device: str = "cpu"
) -> Iterator[tuple[str, float]]:
    """Yield (trace name, max relative error) for each trace of a folder."""
    for name, ours, trace in run_traces(engine, folder, device):
        yield name, max_relative_error(ours, trace)


def run_traces(
    engine: SimpleNamespace, folder: Path, device: str = "cpu", dtype: Any = None
) -> Iterator[tuple[str, dict, dict]]:
    """Yield (trace name, our results, the trace) for each trace of a folder.

    Args:
        engine: see `load_engine`.
        folder: the folder.
        device: where the model runs.
        dtype: in which it computes; by default float32.
    """
    import torch

    run = _live2diff_traces if (folder / "live2diff.ckpt").is_file() else _streamv2v_traces
    with torch.inference_mode():
        plain = build_sd15(folder / "unet.safetensors", device, dtype)
        yield from run(engine, folder, plain)


def _live2diff_traces(
    engine: SimpleNamespace, folder: Path, plain: Any
) -> Iterator[tuple[str, dict, dict]]:
    motion = engine.live2diff_patch.load_motion_module(str(folder / "live2diff.ckpt"))
    model = engine.live2diff_patch.apply_live2diff(plain, motion, engine.window.AttentionWindow())
    for path in traces(folder):
        trace, _ = read_trace(path)
        depth = motion.layout.depth_channels is not None
        yield path.stem, run_live2diff(engine, model, trace, depth), trace


def _streamv2v_traces(
    engine: SimpleNamespace, folder: Path, plain: Any
) -> Iterator[tuple[str, dict, dict]]:
    for path in traces(folder):
        trace, metadata = read_trace(path)
        yield path.stem, run_streamv2v(engine, plain, trace, bank_config(engine, metadata)), trace


def bank_config(engine: SimpleNamespace, metadata: dict[str, str]) -> Any:
    """Read the BankConfig from a trace's metadata."""
    return engine.bank.BankConfig(
        kind={"dyme": "merge", "queue": "queue"}[metadata["mode"]],
        queue_frames=int(metadata["max_frames"]),
        interval=int(metadata["interval"]),
        fusion_strength=float(metadata["fusion_strength"]),
        similarity_threshold=float(metadata["similarity_threshold"]),
    )


def read_trace(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a trace's tensors and metadata."""
    import safetensors

    with safetensors.safe_open(str(path), framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}


def traces(folder: Path) -> list[Path]:
    """List the trace files of a folder."""
    return sorted(folder.glob("trace-*.safetensors"))


def trace_folders(folder: Path) -> list[Path]:
    """List the folders of traces at `folder`: itself, or those in it."""
    places = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    return [place for place in places if (place / "unet.safetensors").is_file() and traces(place)]


def print_errors(folders: list[Path], device: str = "cpu", before: str = "") -> bool:
    """Check all traces, print a line for each after `before`, and return whether all pass."""
    engine, passed = load_engine(), True
    for folder in folders:
        for name, error in check_folder(engine, folder, device):
            passed &= print_error(f"{before}{folder.name} {name}", error)
    return passed


def print_error(name: str, error: float) -> bool:
    """Print a trace's error with the verdict; return whether it passes."""
    passed = error <= LIMIT
    sys.stdout.write(f"{name} {error:.2e} {'PASS' if passed else 'FAIL'}\n")
    sys.stdout.flush()
    return passed


if __name__ == "__main__":
    # Last, because ComfyUI's `nodes.py` must not be hidden by our `nodes/`.
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    from devtools.golden_command import main

    sys.exit(main())
