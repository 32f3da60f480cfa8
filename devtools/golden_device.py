"""Check on a GPU what the CPU cannot show; `dev.py golden --device cuda` runs all of it.

- The recorded traces in float32, TF32 off, with the CPU's limit.
- float16 and bfloat16 against float32 on the same device, with a bound.
- No line of ours waits for the device in a steady frame.
- Memory is flat over a thousand frames.
- Frames per second of SD1.5 at its true size, 512x512, with random weights.

All with and without ComfyUI's dynamic VRAM, each in a process of its own, since the choice belongs
to the process. It downloads nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from devtools import golden
from devtools.golden_checks import DTYPES, WARM, check_device
from devtools.golden_measures import Feed, frames_per_second
from devtools.golden_models import random_motion, random_sd15

STEPS = (1, 2, 4)
SKIPPED = 77


def device_problem(device: str) -> str:
    """Explain in one line why torch cannot use `device`; empty if it can."""
    import torch

    if not device.startswith("cuda"):
        return f"--device takes cpu or cuda, not {device}."
    if not torch.cuda.is_available():
        return (
            f"--device {device} needs an NVIDIA GPU with a driver, and a torch built for CUDA; "
            f"this is torch {torch.__version__}, which finds none. Without --device the CPU is "
            "checked."
        )
    return ""


def check_all(folders: Sequence[Path], device: str, dtypes: Sequence[str] | None) -> int:
    """Run all checks in processes of their own; return 0 only if all passed."""
    if problem := device_problem(device):
        sys.stderr.write(f"error: {problem}\n")
        return 2
    failed = []
    for part in ("checks", "speed"):
        for dynamic in ("off", "on"):
            arguments = command(part, dynamic, folders, device, dtypes)
            status = subprocess.call(arguments, env=_env(device))
            if status == SKIPPED:
                print(f"dynamic-vram={dynamic} {part} SKIPPED: this ComfyUI cannot do it here.")
            elif status:
                failed.append(f"{part} with dynamic VRAM {dynamic}")
    print(f"FAILED: {', '.join(failed)}." if failed else "All checks on the device passed.")
    return int(bool(failed))


def command(
    part: str, dynamic: str, folders: Sequence[Path], device: str, dtypes: Sequence[str] | None
) -> list[str]:
    """Return the command of one process."""
    options = [f"--part={part}", f"--dynamic-vram={dynamic}", f"--device={device}"]
    chosen = [f"--dtype={dtype}" for dtype in dtypes or DTYPES]
    return [sys.executable, __file__, *options, *chosen, *map(str, folders)]


def _env(device: str) -> dict[str, str]:
    # The child finds what this process found, in the same order, but not this folder.
    here = str(Path(__file__).resolve().parent)
    path = os.pathsep.join(p for p in sys.path if p and p != here)
    # ComfyUI runs on the first GPU that it sees.
    _, _, index = device.partition(":")
    chosen = {"CUDA_VISIBLE_DEVICES": index} if index else {}
    return {**os.environ, **chosen, "PYTHONPATH": path}


def main() -> int:
    """Run one part in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--part", choices=("checks", "speed"), required=True)
    parser.add_argument("--dynamic-vram", choices=("on", "off"), required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", action="append", choices=DTYPES)
    options = parser.parse_args()
    logging.disable(logging.INFO)
    # This folder comes first where a script runs by its path; its names could hide the host's.
    sys.path[:] = [p for p in sys.path if Path(p).resolve() != Path(__file__).resolve().parent]
    with contextlib.redirect_stdout(sys.stderr):
        # Motion modules are stored in float16 on most GPUs, which the limit does not allow for.
        checks = {"force_fp32": True} if options.part == "checks" else {}
        if not prepare(options.dynamic_vram == "on", checks):
            return SKIPPED
    import comfy.model_management
    import torch

    # The host's own, with its index, which dynamic VRAM and comparisons of devices need.
    device = str(comfy.model_management.get_torch_device())
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    engine, before = golden.load_engine(), f"dynamic-vram={options.dynamic_vram} "
    with torch.inference_mode():
        if options.part == "speed":
            print_speed(engine, device, options.dtype or DTYPES, before)
            return 0
        lines = check_device(engine, options.folders, device, options.dtype)
        return int(not all([_shown(*line, before) for line in lines]))


def _shown(text: str, passed: bool, before: str) -> bool:
    print(f"{before}{text} {'PASS' if passed else 'FAIL'}", flush=True)
    return passed


def prepare(dynamic: bool, options: dict[str, Any]) -> bool:
    """Import ComfyUI for its own device as its main.py does; False if it has no dynamic VRAM."""
    if dynamic:
        try:
            import comfy_aimdo.control as control
        except ImportError:
            return False
        control.init()
    golden.import_host(cpu=False, disable_dynamic_vram=not dynamic, **options)
    return not dynamic or _use_dynamic_vram(control)


def _use_dynamic_vram(control: Any) -> bool:
    import comfy.memory_management
    import comfy.model_patcher
    import torch

    if not hasattr(comfy.model_patcher, "ModelPatcherDynamic"):
        return False
    devices = range(torch.cuda.device_count())
    try:
        started = control.init_devices((index, 0) for index in devices)
    except TypeError:
        # comfy-aimdo before 0.4.10 takes no room to keep free.
        started = control.init_devices(devices)
    if started:
        comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
        comfy.memory_management.aimdo_enabled = True
    return bool(started)


def print_speed(
    engine: SimpleNamespace,
    device: str,
    dtypes: Sequence[str],
    before: str,
    width: int = 320,
    side: int = 512,
    frames: int = 40,
) -> None:
    """Print a table of frames per second by memory, type and T."""
    import torch

    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    print(f"{before}frames per second, SD1.5 {width} wide, {side}x{side}, without depth and VAE")
    print("| memory | type | " + " | ".join(f"T={steps}" for steps in STEPS) + " |")
    print("|---" * (2 + len(STEPS)) + "|")
    for dtype in dtypes:
        kind = getattr(torch, dtype)
        plain = random_sd15(device, kind, width)
        motion = random_motion(engine, device, kind, width)
        window = engine.window.AttentionWindow()
        models = {
            "none (StreamDiffusion)": plain,
            "Live2Diff": engine.live2diff_patch.apply_live2diff(plain, motion, window),
            "StreamV2V": engine.feature_bank_patch.apply_feature_bank(
                plain, engine.bank.BankConfig()
            ),
        }
        for name, model in models.items():
            rates = []
            for steps in STEPS:
                with Feed(engine, model, (side // 8, side // 8), steps, context=768) as feed:
                    rates.append(frames_per_second(feed.push, wait, WARM, frames))
            print(f"| {name} | {dtype} | " + " | ".join(f"{r:.2f}" for r in rates) + " |")


if __name__ == "__main__":
    sys.exit(main())
