"""Makes docs/evidence.md: `python3 dev.py evidence WORK`.

Needs the clips that `dev.py sample-model WORK` renders. Every stage keeps its results in WORK, so
a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import comfy.cli_args
import torch
import torch.multiprocessing as multiprocessing

# The host chooses its device when it is imported.
comfy.cli_args.args.cpu = True

from . import lasting, measuring  # noqa: E402
from .cache_cost import Costs, costs  # noqa: E402
from .modules import train_modules  # noqa: E402
from .pictures import write_pictures  # noqa: E402
from .report import report  # noqa: E402

DOCS = Path(__file__).resolve().parents[2] / "docs"
STAGES = ("modules", "measure", "lasting", "costs", "report")
# Held-out clips whose pictures are shown: watercolour and neon.
_SHOWN = (0, 2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that are named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="the folder of dev.py sample-model")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for stage in options.stages:
        logging.info("Stage: %s", stage)
        _run(stage, options.work, options.processes)
    return 0


def _run(stage: str, work: Path, processes: int) -> None:
    folder = work / "evidence"
    modules = folder / "modules"
    if stage == "modules":
        train_modules(work / "clips128" / "clips.jsonl", modules, processes)
    elif stage in ("measure", "lasting"):
        multiprocessing.spawn(_part, (stage, folder, processes), nprocs=processes)
    elif stage == "costs":
        torch.set_num_threads(1)
        (folder / "costs.json").write_text(json.dumps(asdict(costs(modules))))
    else:
        _write(folder, modules)


def _part(part: int, stage: str, folder: Path, parts: int) -> None:
    # Processes of one thread each: see `fitting.fit`.
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    run = measuring.measure_all if stage == "measure" else lasting.stream_all
    run(folder / "modules", folder / stage, part, parts)


def _write(folder: Path, modules: Path) -> None:
    shown = [path for clip in _SHOWN for path in write_pictures(modules, DOCS, clip)]
    page = report(
        measuring.read(folder / "measure"),
        lasting.read(folder / "lasting"),
        Costs(**json.loads((folder / "costs.json").read_text())),
        [path.name for path in shown],
    )
    (DOCS / "evidence.md").write_text(page)
    logging.info("Wrote %s", DOCS / "evidence.md")


if __name__ == "__main__":
    raise SystemExit(main())
