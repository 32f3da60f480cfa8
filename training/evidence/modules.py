"""Trains the motion modules of the tables, each by train.py in a process of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import comfy.cli_args

from .methods import MODULES, module_file

_ROOT = Path(__file__).resolve().parents[2]
_CONFIG = _ROOT / "training" / "configs" / "sample_motion.yaml"
# About a quarter of an hour on one core.
STEPS = 500


def train_modules(clips: Path, folder: Path, processes: int, steps: int = STEPS) -> None:
    """Train all modules into folders of `folder`; those that are finished stay.

    Args:
        clips: the manifest of rendered clips.
        folder: where they are kept; a run that was stopped goes on from there.
        processes: modules that are trained at one time, with one thread each.
        steps: of each.

    Raises:
        RuntimeError: a training failed; its output is in `train.log` beside its state.
    """
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(partial(_train, clips, folder, steps), MODULES))


def _train(clips: Path, folder: Path, steps: int, name: str) -> None:
    finished = folder / name / "finished"
    if finished.is_file() and finished.read_text() == str(steps):
        return
    changes = {
        **MODULES[name],
        "videos": clips,
        "output": folder / name,
        "cache": folder / "cache",
        "steps": steps,
    }
    (folder / name).mkdir(parents=True, exist_ok=True)
    host = Path(comfy.cli_args.__file__).parents[1]
    logging.info("Training %s", name)
    with (folder / name / "train.log").open("ab") as log:
        result = subprocess.run(
            [
                *(sys.executable, _ROOT / "train.py", _CONFIG),
                *(f"{key}={value}" for key, value in changes.items()),
                *("--comfyui", host),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    if result.returncode or not module_file(folder, name).is_file():
        raise RuntimeError(f"Training {name} failed; see {folder / name / 'train.log'}.")
    finished.write_text(str(steps))
