"""Count what a steady frame costs beside its arithmetic, in another checkout and in this one.

    git worktree add ../before b9e4673
    COMFYUI_PATH=/path/to/ComfyUI python bench/steady_state.py ../before [--steps 2] [--rounds 5]

Both run in turns, each time in a new process, on the same UNet of SD1.5's layers; latents go in and
x0 comes out. By default the UNet is that of the recorded traces, 32 channels wide, so that little
but the calls themselves takes time; `--true-size` takes SD1.5's own widths, with random weights.

- calls: events of torch's profiler, nested ones included, so that one `x.to(...)` counts up to
  three times. Threads other than the stream's (the noise maker's) are not seen.
- copies: `aten::copy_` among them.
- read-backs: `aten::_local_scalar_dense` among them, which `.item()`, `bool()`, `float()` and
  `int()` of a tensor end in, and calls of `.tolist()`, `.numpy()` and `.cpu()`.
- outside the layers: the time of a push without the time inside the UNet's and the motion module's
  own layers, those modules without children (convolutions, linear layers, norms), which are timed
  one by one. What is left is Python, the host's wrappers, and the operations that belong to no
  layer: schedules, noise, caches, and the product of attention, which is small in a narrow UNet.
- frames per second: of pushes without any of these counters, on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from checkouts import Stream, put_memory

ROOT = Path(__file__).resolve().parent.parent
MEMORIES = ("none", "Live2Diff", "feature bank")
MEASURES = {
    "calls": "profiler calls per frame",
    "copies": "copies per frame",
    "reads": "read-backs per frame",
    "outside": "µs per frame outside the layers",
    "rate": "frames per second",
}


def profiled(stream: Stream, frames: int) -> dict[str, float]:
    """Count calls, copies and read-backs per frame."""
    from torch.profiler import ProfilerActivity, profile

    with unseen_reads() as reads, profile(activities=[ProfilerActivity.CPU]) as profiler:
        stream.push(frames)
    counts = {event.key: event.count for event in profiler.key_averages()}
    return {
        "calls": sum(counts.values()) / frames,
        "copies": counts.get("aten::copy_", 0) / frames,
        "reads": (counts.get("aten::_local_scalar_dense", 0) + reads.total()) / frames,
    }


@contextmanager
def unseen_reads() -> Iterator[Counter]:
    """Count the calls that read a tensor back and do not show in the profile."""
    import torch

    counts: Counter = Counter()

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(torch.Tensor, name)

        def call(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            counts[name] += 1
            return method(tensor, *args, **kwargs)

        return call

    with ExitStack() as stack:
        for name in ("tolist", "numpy", "cpu"):
            stack.enter_context(patch.object(torch.Tensor, name, counted(name)))
        yield counts


def outside_layers(stream: Stream, modules: list[Any], frames: int) -> float:
    """Return the microseconds per frame that pass outside all layers of `modules`."""
    inside = 0.0

    def timed(forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal inside
            start = time.perf_counter()
            try:
                return forward(*args, **kwargs)
            finally:
                inside += time.perf_counter() - start

        return call

    layers = [layer for m in modules for layer in m.modules() if not list(layer.children())]
    for layer in layers:
        layer.forward = timed(layer.forward)
    try:
        whole = stream.push(frames)
    finally:
        for layer in layers:
            del layer.forward
    return (whole - inside / frames) * 1e6


def measure(checkout: Path, unet: Path, motion: Path, steps: int, frames: int) -> dict[str, Any]:
    """Measure all memories in this process: {memory: {measure: number}}."""
    # ComfyUI comes first, because its `nodes.py` and the checkout's `nodes/` share a name.
    sys.path[:1] = [os.environ["COMFYUI_PATH"], str(checkout)]
    import torch

    from devtools import golden

    torch.set_num_threads(1)
    golden.import_host()
    engine, results = golden.load_engine(), {}
    with torch.inference_mode():
        for name in MEMORIES:
            plain = golden.build_sd15(unet)
            model, extra = put_memory(name, checkout, engine, plain, motion)
            modules = [plain.model.diffusion_model, *([] if extra is None else [extra])]
            with Stream(checkout, engine, model, steps) as stream:
                rate = 1 / stream.push(frames)
                outside = outside_layers(stream, modules, frames)
                results[name] = {**profiled(stream, frames), "outside": outside, "rate": rate}
    return results


def in_new_process(checkout: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure a checkout in a process of its own."""
    unet, motion = model_files(arguments.true_size)
    options = [f"--steps={arguments.steps}", f"--frames={arguments.frames}"]
    command = [
        sys.executable,
        __file__,
        str(checkout),
        *options,
        "--measure",
        str(unet),
        str(motion),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def model_files(true_size: bool) -> tuple[Path, Path]:
    """Return the files of the UNet and of the motion module."""
    if not true_size:
        folder = ROOT / "tests" / "data" / "live2diff"
        return folder / "unet.safetensors", folder / "live2diff.ckpt"
    sys.path.append(str(ROOT / "bench"))
    import memories

    return memories.model_files()


def table(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """Format the medians over all rounds, and the medians of the rounds' ratios, in Markdown."""
    lines = ["| memory | what | before | after | after / before |", "|---|---|---|---|---|"]
    for memory in MEMORIES:
        for key, title in MEASURES.items():
            one, other = ([each[memory][key] for each in rounds] for rounds in (before, after))
            ratios = [b / a for a, b in zip(one, other, strict=True) if a]
            ratio = f"{statistics.median(ratios):.2f}" if ratios else "-"
            shown = [f"{statistics.median(values):,.4g}" for values in (one, other)]
            if key in ("calls", "copies", "outside"):
                shown = [f"{statistics.median(values):,.0f}" for values in (one, other)]
            lines.append(f"| {memory} | {title} | {' | '.join(shown)} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    """Measure both checkouts in turns and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--steps", type=int, default=2, help="T, 1 to 4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=8, help="per measurement, in fours")
    parser.add_argument("--true-size", action="store_true")
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    checkout = arguments.before.resolve()
    if arguments.measure:
        print(json.dumps(measure(checkout, *arguments.measure, arguments.steps, arguments.frames)))
        return
    before, after = [], []
    for _ in range(arguments.rounds):
        before.append(in_new_process(checkout, arguments))
        after.append(in_new_process(ROOT, arguments))
    print(f"T={arguments.steps}, median of {arguments.rounds} rounds\n")
    print(table(before, after))


if __name__ == "__main__":
    main()
