"""Rendered clips in some style, with their source, depth and a manifest for train.py."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from torch.nn.functional import interpolate

from live2diff_core.depth.ranges import RunningRange, normalise_running
from live2diff_core.sample_model.depth import SampleDepth

from .prompts import draw
from .scene_maker import SceneMaker
from .scenes import Frame, Plane, Scene
from .styles import BLOCK, STYLES

SIDE, FRAMES, FPS = 256, 20, 12
# Clips per scene, each in another style.
STYLES_PER_SCENE = 2
# Numbers of scenes for training; those of held-out clips lie beyond.
FIRST_SCENE, FIRST_HELD_OUT = 200_000, 300_000
# The share of clips that pan over one photograph, as many real videos nearly do.
PANS = 0.35
DEPTH_SIDE = 384


def write_clips(maker: SceneMaker, depth: SampleDepth, folder: Path, scenes: range) -> Path:
    """Write clips of `scenes`, unless they are there, and return their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for number in scenes:
        part = folder / f"{number}.json"
        if not part.is_file():
            part.write_text("\n".join(_write_scene(maker, depth, folder, number)))
        lines += part.read_text().splitlines()
    manifest = folder / "clips.jsonl"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def scene(maker: SceneMaker, number: int) -> Scene:
    """Make the scene of a number: a pan over a photograph, or one with things in it."""
    random = np.random.default_rng((5, number))
    if random.random() >= PANS:
        return maker.make(number)
    photograph = np.dstack([maker.crop(random, 300), np.ones((512, 512), np.float32)])
    plane = Plane(photograph, 1.6, (1.0, 0.0, 0.0), tuple(random.uniform(-0.3, 0.3, 2)))
    return Scene((plane,), camera=tuple(random.normal(0, (0.012, 0.008, 0.006))))


def _write_scene(maker: SceneMaker, depth: SampleDepth, folder: Path, number: int) -> Iterator[str]:
    frames = list(scene(maker, number).frames(FRAMES, SIDE))
    random = np.random.default_rng((6, number))
    source, near = f"{number}-source.mp4", f"{number}-depth.mp4"
    write_video(folder / source, (frame.picture for frame in frames))
    write_video(folder / near, estimated_depth(depth, frames))
    names = [name for name in STYLES if name != "photograph"]
    for style in random.choice(names, STYLES_PER_SCENE, replace=False):
        video = f"{number}-{style.replace(' ', '-')}.mp4"
        write_video(folder / video, (STYLES[style](frame.picture) for frame in frames))
        prompt = draw(str(style), random)
        yield json.dumps({"video": video, "prompt": prompt, "depth": near, "source": source})


@torch.no_grad()
def estimated_depth(network: SampleDepth, frames: Iterable[Frame]) -> Iterator[np.ndarray]:
    """Estimate depth as a stream does, [SIDE, SIDE, 3] in 0..1."""
    state = RunningRange()
    for frame in frames:
        picture = torch.from_numpy(frame.picture).movedim(-1, 0)[None] * 2 - 1
        size = (DEPTH_SIDE, DEPTH_SIDE)
        found = network(interpolate(picture, size, mode="bilinear", align_corners=False))
        grey, state = normalise_running(found, state)
        small = interpolate(grey[:, None], (SIDE, SIDE), mode="bilinear", align_corners=False)
        yield np.repeat(small[0].movedim(0, -1).numpy(), 3, -1)


def write_cut(manifest: Path, folder: Path, side: int) -> Path:
    """Cut squares from the clips of a manifest, at multiples of 16 pixels; return a new manifest.

    Attention makes whole pictures costly; most of what is to be learned is in a part of one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, line in enumerate(manifest.read_text().splitlines()):
        entry = json.loads(line)
        left, top = np.random.default_rng((7, number)).integers((SIDE - side) // BLOCK + 1, size=2)
        left, top = left * BLOCK, top * BLOCK
        for kind in ("video", "depth", "source"):
            name = f"{number}-{entry[kind]}"
            read = _pictures(manifest.parent / entry[kind])
            write_video(folder / name, (p[top : top + side, left : left + side] for p in read))
            entry[kind] = name
        lines.append(json.dumps(entry))
    cut = folder / manifest.name
    cut.write_text("\n".join(lines) + "\n")
    return cut


def _pictures(path: Path) -> Iterator[np.ndarray]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24").astype(np.float32) / 255


def write_video(path: Path, pictures: Iterable[np.ndarray]) -> None:
    """Encode square pictures [S, S, 3] in 0..1 as H.264, nearly without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8"})
        stream.pix_fmt = "yuv444p"
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.rint(picture.clip(0, 1) * 255).astype(np.uint8))
            if index == 0:
                stream.width, stream.height = frame.width, frame.height
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
