"""The command `measure.py`: measures files of videos against their input."""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..host.location import find_host
from ..video.frame import VideoError
from ..video.frame_size import FrameSizeError, plan_frame_size
from ..video.reader import VideoReader, open_video
from .flow import FlowEstimator
from .frames import MeasureError, Picture
from .instruments import FLOW_CHOICES, choose_instruments, clip_embedder, depth_estimator
from .measurement import Instruments, Measurement, measure
from .plot import plot
from .raft import RAFTFlow, load_raft
from .report import as_dict, table

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
# What can be wrong with files, as people read it.
_ERRORS = (MeasureError, VideoError, FrameSizeError, OSError, ValueError, ImportError, RuntimeError)
# custom_nodes/THIS_PACK/live2diff_core/metrics/command.py
_HOST = Path(__file__).resolve().parents[4]


def build_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    parser = argparse.ArgumentParser(
        prog="measure.py",
        description="Measures translated videos against their input: structure, smoothness, "
        "warp error, MAWE, scene cuts, flicker.",
    )
    add = parser.add_argument
    add("input", metavar="INPUT", help="the video before: a file, or a folder of pictures")
    add("outputs", metavar="OUTPUT", nargs="+", help="the video after; several are compared")
    add("--json", action="store_true", help="print JSON instead of a table")
    add(
        "--match-size",
        action="store_true",
        help="scale and crop INPUT to the size of OUTPUT, as Stream Video does",
    )
    add(
        "--flow",
        choices=FLOW_CHOICES,
        default="auto",
        help="optical flow: auto is RAFT where its weights are in ComfyUI's models/optical_flow, "
        "else OpenCV's DIS (default: %(default)s)",
    )
    add("--depth-model", type=Path, metavar="FILE", help="MiDaS DPT-hybrid, for depth MSE")
    add("--clip-vision", type=Path, metavar="FILE", help="a CLIP vision model, for the CLIP score")
    add(
        "--comfyui",
        type=Path,
        default=_HOST,
        metavar="DIR",
        help="ComfyUI's folder, whose code runs the two networks (default: %(default)s)",
    )
    add("--row", type=float, default=0.5, help="height of the X-T slice: 0 (top) to 1")
    add(
        "--pictures",
        type=Path,
        metavar="DIR",
        help="write plot and X-T slice of each OUTPUT into this folder",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = build_parser().parse_args(arguments)
    # A terminal that has no sign for a letter of a name must not end the run.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        instruments = _instruments(options)
        return _run(options, instruments)
    except _ERRORS as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return INTERRUPTED


def _run(options: argparse.Namespace, instruments: Instruments) -> int:
    measured: dict[str, Measurement] = {}
    failed: dict[str, str] = {}
    for output in options.outputs:
        try:
            measured[output] = _measure_file(options, output, instruments)
            if options.pictures is not None:
                _write_pictures(options.pictures, Path(output).stem, measured[output])
        except _ERRORS as error:
            failed[output] = str(error)
    if options.json:
        results = [{"input": options.input, "output": o, **as_dict(m)} for o, m in measured.items()]
        errors = [{"input": options.input, "output": o, "error": e} for o, e in failed.items()]
        sys.stdout.write(json.dumps(results + errors, indent=2) + "\n")
    elif measured:
        sys.stdout.write(table([Path(name).name for name in measured], [*measured.values()]) + "\n")
    for output, reason in failed.items():
        sys.stderr.write(f"error: {output}: {reason}\n")
    return FAILED if failed else OK


def _measure_file(
    options: argparse.Namespace, output: str, instruments: Instruments
) -> Measurement:
    with open_video(options.input) as before, open_video(output) as after:
        total = after.info.frame_count
        with tqdm(total=total, desc=Path(output).name, unit="frame", disable=None) as bar:
            source = matched(before, after) if options.match_size else pictures(before)
            return measure(source, pictures(after), instruments, lambda _: bar.update())


def pictures(reader: VideoReader) -> Iterator[Picture]:
    """Yield the frames of a video as pictures."""
    return (frame.image for frame in reader)


def matched(before: VideoReader, after: VideoReader) -> Iterator[Picture]:
    """Yield the frames of `before`, scaled and cropped to the size of `after` as by Stream Video.

    Raises:
        FrameSizeError: the size cannot be that of a translated video.
    """
    old, new = before.info, after.info
    plan = plan_frame_size(old.width, old.height, "fill", new.width, new.height)
    return map(plan.apply, pictures(before))


def _instruments(options: argparse.Namespace) -> Instruments:
    depth = clip = None
    if options.depth_model or options.clip_vision:
        gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
        find_host(options.comfyui, "Measuring depth MSE and CLIP score", cpu=not gpu)
        from . import host_models

        if options.depth_model:
            depth = depth_estimator(host_models.load_depth(options.depth_model))
        if options.clip_vision:
            clip = clip_embedder(host_models.load_clip_vision(options.clip_vision))
    folders = [options.comfyui / "models" / "optical_flow"]
    return choose_instruments(options.flow, folders, _raft, depth, clip, options.row)


def _raft(path: Path) -> FlowEstimator:
    """Open RAFT on a GPU of NVIDIA's, if there is one, else on the CPU."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return RAFTFlow(load_raft(path).to(device))


def _write_pictures(folder: Path, name: str, measurement: Measurement) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shown: dict[str, NDArray[np.uint8]] = {
        "plot": plot(measurement.series),
        "xt": measurement.xt_slice,
    }
    for kind, image in shown.items():
        Image.fromarray(image).save(folder / f"{name}-{kind}.png")
