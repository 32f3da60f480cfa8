"""Streams as a released version left them: how they were made, and how they go on.

`write` made what lies in tests/data/frozen/VERSION, with the code of that version. What is there
is never made anew: users have such files, too.
"""

import shutil
from contextlib import suppress
from pathlib import Path

import folder_paths
import numpy
import torch
from host_bank import banked
from host_stream import node, patched, prompt
from live_stream_inputs import TinyDepth, load, pictures, save, step
from safetensors.torch import load_file, save_file
from stream_video import StoppedError, translate_video, translated

FROZEN = Path(__file__).resolve().parents[1] / "data" / "frozen"
LIVE, VIDEO, EXPECTED = "live.safetensors", "video", "expected.safetensors"
CLIP = "clip.mov"
# Frames before the live stream was saved, and all of its frames.
SAVED_AFTER, FRAMES = 7, 11


def frozen_model(sd15, motion):
    """Both memories, with a window that is small on the disk."""
    return banked(patched(sd15, motion, 3, 1), kind="merge", extend=("middle", "up 2"))


def options():
    """Stream Options and a Similar-Frame Filter."""
    return {
        "options": node("options", "Live2DiffStreamOptions")
        .execute("self", 0.8, "same for all frames", "lcm")
        .args[0],
        "frame_filter": node("options", "Live2DiffSimilarFrameFilter").execute(0.9, 2).args[0],
        "cfg": 1.4,
    }


def live_frames():
    """[F, H, W, 3] with two equal ones after the other behind the cut, for the filter."""
    images = pictures(FRAMES)
    images[SAVED_AFTER + 1] = images[SAVED_AFTER]
    return images


def live_settings():
    """Everything that a live stream can have."""
    return {**options(), "depth_model": TinyDepth(), "positive": prompt(4)}


def go_on_live(model, vae):
    """Load the saved stream from the output folder, and feed the rest: [F, H, W, 3]."""
    load()
    rest, settings = live_frames()[SAVED_AFTER:], live_settings()
    done = [step(image[None], model, vae, **settings) for image in rest[:-1]]
    done.append(step(rest[-1:], model, vae, finish=True, **settings))
    return torch.cat([images for images, index, _ in done if index >= 0])


def video_settings():
    """A schedule of prompts, guidance, depth, and two checkpoints."""
    schedule = node("prompts", "Live2DiffPromptSchedule")
    positive = schedule.execute(prompt(0), prompt(5), 5, 2, "keep").args[0]
    graph = {
        "loader": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15"}},
        "stream": {"class_type": "Live2DiffStreamVideo", "inputs": {"model": ["loader", 0]}},
    }
    return {
        **options(),
        "positive": positive,
        "depth_model": TinyDepth(),
        "graph": (graph, "stream"),
    }


def block_images():
    """uint8 [64, 80, 3] each, some like the one before."""
    blocks = numpy.random.default_rng(0).integers(0, 256, (6, 8, 10, 3), dtype=numpy.uint8)
    return [blocks[n].repeat(8, 0).repeat(8, 1) for n in (0, 1, 1, 2, 3, 3, 4, 4, 5, 0)]


def write(version, sd15, motion, vae, calls):
    """Make the files of a version: live stream, partial video, and how both go on."""
    from clips import make_clip

    folder = FROZEN / version
    model = frozen_model(sd15, motion)
    for image in live_frames()[:SAVED_AFTER]:
        step(image[None], model, vae, **live_settings())
    save()
    output = Path(folder_paths.get_output_directory())
    shutil.copy(output / "live2diff" / LIVE, folder / LIVE)
    live = go_on_live(model, vae)
    images = block_images()
    clip = make_clip(folder, "prores", ticks=range(len(images)), images=images)
    assert clip.name == CLIP
    with calls.stopping_at(None):
        whole = translated(clip, model, vae, **video_settings())
    # Past the second checkpoint.
    with calls.stopping_at(calls.count - 3), suppress(StoppedError):
        translate_video(clip, model, vae, **video_settings())
    shutil.copytree(output / "live2diff_partial", folder / VIDEO)
    expected = {"live": live.mul(255).round().byte(), "video": whole}
    save_file(expected, folder / EXPECTED)


def expected(version, name):
    """uint8 [F, H, W, 3] that the streams of a version came to: "live" or "video"."""
    return load_file(FROZEN / version / EXPECTED)[name]
