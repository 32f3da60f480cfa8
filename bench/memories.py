"""Measure what each temporal memory costs: time per frame and bytes, against no memory.

SD1.5 at its true size with random weights, through ComfyUI's own UNet, one frame at a time. All
memories are measured in turns within one run; ratios are medians over the rounds.

    COMFYUI_PATH=/path/to/ComfyUI python bench/memories.py [--size 256] [--steps 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# ComfyUI comes first, because its `nodes.py` and this checkout's `nodes/` share a name.
sys.path[:1] = [os.environ["COMFYUI_PATH"], str(ROOT)]

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from devtools import golden, standin_layouts, standin_weights  # noqa: E402
from devtools.paths import cache_dir  # noqa: E402

WIDTHS = (320, 640, 1280, 1280)
# In every turn, one frame is stored in the feature bank.
FRAMES_PER_TURN = 4
WARM = 12


def model_files() -> tuple[Path, Path]:
    """Write random weights of the true size, once; return the checkpoint and motion module."""
    folder = cache_dir() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    unet, motion = folder / "sd15.safetensors", folder / "live2diff.ckpt"
    if not motion.is_file():
        save_file(standin_weights.random_tensors(standin_layouts.unet_shapes(WIDTHS)), unet)
        tensors = standin_weights.motion_module_tensors(WIDTHS)
        torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, motion)
    return unet, motion


def memories(engine: SimpleNamespace, plain: Any, motion: Any) -> dict[str, Any]:
    """Apply each memory to `plain`; return the MODELs by name, the baseline first."""
    bank, live = engine.bank, engine.live2diff_patch
    put = engine.feature_bank_patch.apply_feature_bank
    moved = live.apply_live2diff(plain, motion, engine.window.AttentionWindow())
    queue = bank.BankConfig(kind=bank.BankKind.QUEUE, queue_frames=2)
    return {
        "none": plain,
        "feature bank, merge": put(plain, bank.BankConfig()),
        "feature bank, queue of 2": put(plain, queue),
        "motion module": moved,
        "motion module and bank": put(moved, bank.BankConfig()),
    }


class Turn:
    """Repeatedly opens a stream, pushes frames and closes it."""

    def __init__(self, engine: SimpleNamespace, model: Any, size: int, steps: int) -> None:
        """Start a stream of `size` x `size` at T = `steps`."""
        self.latent, prompt = (size // 8, size // 8), [[torch.randn(1, 77, 768), {}]]
        schedule = engine.sd15_model.host_schedule(model, 4, steps / 4)
        guidance = engine.guidance.Guidance()
        self.spec = engine.spec.StreamSpec(model, prompt, prompt, schedule, guidance, seed=0)
        self.session = self.spec.start()
        self.seconds: list[float] = []

    def run(self, frames: int) -> float:
        """Push frames and return the seconds per frame, without the time to open the stream."""
        with self.spec.open(self.latent, None).model as host:
            self.session.open(host)
            start = time.perf_counter()
            for _ in range(frames):
                self.session.push(host, torch.randn(4, *self.latent, device=host.device))
            if host.device.type == "cuda":
                torch.cuda.synchronize()
            return (time.perf_counter() - start) / frames


def weights_bytes(model: Any) -> int:
    """Count the bytes of the UNet's weights and of those that a memory adds."""
    extra = sum((m for m in model.additional_models.values()), [])
    modules = [model.model.diffusion_model, *(patcher.model for patcher in extra)]
    return sum(p.nbytes for module in modules for p in module.parameters())


def main() -> None:
    """Measure all memories in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    golden.import_host()
    engine = golden.load_engine()
    unet, motion_file = model_files()
    with torch.inference_mode():
        motion = engine.live2diff_patch.load_motion_module(str(motion_file))
        models = memories(engine, golden.build_sd15(unet), motion)
        turns = {
            name: Turn(engine, model, arguments.size, arguments.steps)
            for name, model in models.items()
        }
        for turn in turns.values():
            turn.run(WARM)
        for _ in range(arguments.rounds):
            for turn in turns.values():
                turn.seconds.append(turn.run(FRAMES_PER_TURN))
    report(turns, arguments)


def report(turns: dict[str, Turn], arguments: argparse.Namespace) -> None:
    """Print times and bytes, and their ratios to those of the baseline."""
    base = turns["none"]
    device = base.spec.model.load_device
    print(f"{arguments.size}x{arguments.size}, T={arguments.steps}, {device}")
    for name, turn in turns.items():
        ratio = statistics.median(a / b for a, b in zip(turn.seconds, base.seconds, strict=True))
        held, weights = turn.session.nbytes, weights_bytes(turn.spec.model)
        total = (held + weights) / weights_bytes(base.spec.model)
        print(
            f"{name:<26}{statistics.median(turn.seconds) * 1e3:8.0f} ms a frame, {ratio:.2f} x; "
            f"state {held / 1e6:7.1f} MB, weights {weights / 1e6:6.0f} MB, together {total:.2f} x"
        )


if __name__ == "__main__":
    main()
