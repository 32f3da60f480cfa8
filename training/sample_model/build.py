"""Makes the sample model, from pictures on this machine to the files that ship.

    python3 dev.py sample-model WORK

Every stage keeps its results in the folder WORK, so a run that was stopped goes on. The motion
module is trained last, by train.py with `training/configs/sample_motion.yaml`.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import comfy.cli_args
import numpy as np
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing

# The host chooses its device and its attention when it is imported.
comfy.cli_args.args.cpu = True
comfy.cli_args.args.use_pytorch_cross_attention = True

from live2diff_core.sample_model import loading  # noqa: E402
from live2diff_core.sample_model.depth import SampleDepth  # noqa: E402

from . import autoencoder, clips, denoiser, depth  # noqa: E402
from .export import export, known_rows  # noqa: E402
from .images import SIDE, images  # noqa: E402
from .pictures import photographs  # noqa: E402
from .scene_maker import SceneMaker  # noqa: E402
from .styles import STYLES  # noqa: E402
from .words import tokens  # noqa: E402

# Pictures whose latents the denoiser is trained on, and scenes of clips.
LATENTS, SCENES = 480, 96
CUT = 128
_STAGES = ("images", "vae", "depth", "latents", "denoiser", "clips", "export")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that are named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="folder for what is made on the way")
    parser.add_argument("--stages", nargs="+", choices=_STAGES, default=list(_STAGES))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options.work.mkdir(parents=True, exist_ok=True)
    # Processes of one thread each: see `fit`.
    torch.set_num_threads(1)
    for stage in options.stages:
        logging.info("Stage: %s", stage)
        _run(stage, options.work, options.processes)
    return 0


def _run(stage: str, work: Path, processes: int) -> None:
    if stage == "images":
        images(work)
    elif stage == "vae":
        network = autoencoder.train(images(work), work)
        torch.save(network.state_dict(), work / "vae-final.pt")
    elif stage == "depth":
        maker = SceneMaker(list(photographs()))
        torch.save(
            depth.train(*depth.scenes(maker, work), work).state_dict(), work / "depth-final.pt"
        )
    elif stage == "latents":
        latents(work)
    elif stage == "denoiser":
        multiprocessing.spawn(_train_denoiser, (work, processes), nprocs=processes)
    elif stage == "clips":
        maker = SceneMaker(list(photographs()))
        first = clips.FIRST_SCENE
        made = clips.write_clips(maker, _depth(work), work / "clips", range(first, first + SCENES))
        clips.write_cut(made, work / "clips128", CUT)
    else:
        write_files(work, loading.WEIGHTS)


def latents(work: Path, count: int = LATENTS) -> np.ndarray:
    """Open latents [count, styles, 4, h, w] of the pictures, and encode those that are missing."""
    path, shape = work / "latents.npy", (count, len(STYLES), 4, SIDE // 8, SIDE // 8)
    mode = "r+" if path.is_file() else "w+"
    stored = np.lib.format.open_memmap(path, mode=mode, dtype=np.float16, shape=shape)
    pictures, network = images(work), _vae(work)
    for index in range(count):
        if not stored[index, -1].any():
            with torch.no_grad():
                encoded = network.encode(autoencoder.to_tensor(pictures[index]))
            stored[index] = encoded.numpy()
    return stored


def _train_denoiser(rank: int, work: Path, processes: int) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.ERROR if rank else logging.INFO)
    if processes > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{work}/meeting", rank=rank, world_size=processes
        )
    model = denoiser.train(latents(work), tokens, work)
    if not rank:
        torch.save(model.state_dict(), work / "denoiser-final.pt")


def _vae(work: Path) -> autoencoder.TAESD:
    network = autoencoder.build()
    # Strict but for the scale, which is not trained.
    network.load_state_dict(torch.load(work / "vae-final.pt", weights_only=True), strict=False)
    return network.eval()


def _depth(work: Path) -> SampleDepth:
    network = SampleDepth()
    network.load_state_dict(torch.load(work / "depth-final.pt", weights_only=True))
    return network.eval()


def write_files(work: Path, folder: Path) -> None:
    """Write the UNet, text encoder, VAE and depth network in float16."""
    model = torch.load(work / "denoiser-final.pt", weights_only=True)

    def part(prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): v for k, v in model.items() if k.startswith(prefix)}

    export(folder / loading.UNET_FILE, part("unet."))
    export(folder / loading.TEXT_FILE, known_rows(part("text.")))
    vae = {k: v for k, v in _vae(work).state_dict().items() if not k.startswith("vae_")}
    export(folder / loading.VAE_FILE, vae)
    export(folder / loading.DEPTH_FILE, _depth(work).state_dict())
    logging.info("Wrote into %s", folder)


if __name__ == "__main__":
    raise SystemExit(main())
