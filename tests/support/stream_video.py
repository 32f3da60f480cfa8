"""Stream Video inside ComfyUI's process: usual inputs, small clips, a stop at any call."""

import random
import shutil
from contextlib import contextmanager
from pathlib import Path

import comfy_api.latest
import folder_paths
import numpy
import torch
from clips import make_clip
from host_stream import node, prompt
from live_stream_inputs import TinyVAE
from video_graphs import decode

PIXELS = 64
INPUTS = {
    "seed": 3,
    "steps": 4,
    "denoise": 0.5,
    "cfg": 1.0,
    "size": "keep",
    "width": 64,
    "height": 64,
    "codec": "lossless",
    "crf": 18,
    "checkpoint_every": 3,
    "save_minutes": 0.0,
}


class StoppedError(Exception):
    """What a test stops a run with."""


class Calls:
    """Counts the calls of a MODEL's UNet and stops at one; ask for it before memories are put on.

    Attributes:
        count: calls so far.
        stop_at: the call that raises; None lets all pass.
        then: called with each call's number.
    """

    def __init__(self, model):
        self.count, self.stop_at, self.then = 0, None, lambda number: None
        model.set_model_unet_function_wrapper(self._run)

    def _run(self, apply, call):
        self.count += 1
        if self.count == self.stop_at:
            raise StoppedError
        self.then(self.count)
        return apply(call["input"], call["timestep"], **call["c"])

    @contextmanager
    def stopping_at(self, call):
        """Count from 1 again, and stop at `call`."""
        self.count, self.stop_at = 0, call
        try:
            yield
        finally:
            self.stop_at = None


def block_pictures(shown, seed=0):
    """uint8 [64, 64, 3] per number in `shown`; equal numbers are equal pictures."""
    generator = numpy.random.default_rng(seed)
    blocks = generator.integers(0, 256, (max(shown) + 1, 8, 8, 3), dtype=numpy.uint8)
    return [blocks[number].repeat(8, 0).repeat(8, 1) for number in shown]


def block_clip(folder, shown, kind="prores", **more):
    """Write a clip of `block_pictures`; each frame is coded by itself."""
    images = block_pictures(shown)
    return make_clip(folder, kind, ticks=range(len(images)), images=images, **more)


def forget_results():
    """Delete the results that are kept, as happens when they have been saved."""
    root = Path(folder_paths.get_output_directory(), "live2diff_partial")
    for result in root.glob("*/result.*"):
        shutil.rmtree(result.parent)


@torch.inference_mode()
def translate_video(clip, model, vae=None, graph=None, forget=True, **changes):
    """Run the node: a VIDEO.

    Args:
        clip: a path, or a VIDEO.
        graph: (prompt, node id) as the host tells them.
        forget: delete kept results first, so that the same inputs run again.
    """
    if forget:
        forget_results()
    inputs = {"positive": prompt(), "negative": prompt(1), **INPUTS, **changes}
    video = clip
    if not hasattr(clip, "get_components"):
        video = comfy_api.latest.InputImpl.VideoFromFile(str(clip))
    stream = node("video", "Live2DiffStreamVideo")
    stream.hidden.prompt, stream.hidden.unique_id = graph or (None, None)
    return stream.execute(video, model=model, vae=vae or TinyVAE(), **inputs).args[0]


def translated(clip, model, vae=None, **changes):
    """Run the node: frames, uint8 [F, H, W, 3], to the last bit."""
    _, images = decode(translate_video(clip, model, vae, **changes).get_stream_source())
    return torch.from_numpy(images)


def two_stops(calls, seed):
    """Pick calls at which a run of so many is stopped, and the run that goes on with it."""
    generator = random.Random(seed)
    first = generator.randrange(1, calls)
    return first, generator.randrange(1, calls - first + 1)
