"""Long videos inside ComfyUI's process: a stand-in in the released layout, small and short."""

import shutil
from contextlib import contextmanager

import folder_paths
import numpy
import torch
from host_stream import node
from video_graphs import decode

SIZE = 64
INPUTS = {
    "width": SIZE,
    "height": SIZE,
    "seed": 3,
    "steps": 1,
    "text_guidance": 7.5,
    "anchor_guidance": 7.5,
    "eta": 1.0,
    "codec": "lossless",
    "crf": 18,
    "checkpoint_every": 8,
    "save_minutes": 0.0,
}
ENHANCE = {
    "width": 64,
    "height": 80,
    "seed": 3,
    "steps": 3,
    "guidance": 7.5,
    "chunk": 4,
    "overlap": 2,
    "blending": "x0 (published code)",
    "codec": "lossless",
    "crf": 18,
    "checkpoint_every": 2,
    "save_minutes": 0.0,
}


def text(seed, width=64, tokens=77):
    """A conditioning as the stand-in's CLIP makes it."""
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, tokens, width, generator=generator), {}]]


class LongVideos:
    """A loaded stand-in, whose UNet counts its calls and can be stopped at one.

    Attributes:
        model, clip, clip_vision, vae: what the loader returns.
        enhancer: the enhancer's loader's.
        calls: of either UNet since the last `stopping_at`.
        then: called at the call to stop at.
    """

    def __init__(self, model, clip, clip_vision, vae, enhancer):
        self.model, self.clip, self.clip_vision, self.vae = model, clip, clip_vision, vae
        self.enhancer, self.calls, self._stop = enhancer, 0, None
        self.then = _stopped
        for network in (model.denoiser, enhancer.network):
            network.register_forward_pre_hook(self._count)

    def _count(self, *_):
        self.calls += 1
        if self.calls == self._stop:
            self.then()

    @contextmanager
    def stopping_at(self, call):
        """Count from 1 again, and stop at `call`; None counts only."""
        self.calls, self._stop = 0, call
        try:
            yield self
        finally:
            self._stop, self.then = None, _stopped

    def _models(self):
        texts = {"positive": text(1), "negative": text(2)}
        return {"vae": self.vae, **texts}

    def make(self, **changes):
        """Run Long Video From Text; return its VIDEO."""
        inputs = {"model": self.model, **self._models(), **INPUTS, "frames": 20, "seconds": 0.0}
        with torch.inference_mode():
            made = node("long_video", "Live2DiffLongVideo").execute(**{**inputs, **changes})
        return made.args[0]

    def extend(self, video, **changes):
        """Run Extend Video; return its VIDEO."""
        inputs = {"model": self.model, **self._models(), **INPUTS, "seconds": 1.0}
        more = {"video": video, "anchor": "first frame", "redo_from_chunk": 0}
        with torch.inference_mode():
            extend = node("extend_video", "Live2DiffExtendVideo").execute
            return extend(**{**inputs, **more, **changes}).args[0]

    def enhance(self, **changes):
        """Run Enhance Video; return its VIDEO."""
        inputs = {"enhancer": self.enhancer, **self._models(), **ENHANCE}
        with torch.inference_mode():
            enhance = node("enhance_video", "Live2DiffEnhanceVideo").execute
            return enhance(**{**inputs, **changes}).args[0]


class StoppedError(Exception):
    """What a test stops a run with."""


def _stopped():
    raise StoppedError


def shown(video):
    """Frames [F, H, W, 3] of a VIDEO that a node made."""
    return decode(video.get_stream_source())[1]


def times(video):
    """Seconds at which its frames are shown."""
    return decode(video.get_stream_source())[0]


def pictures(count, seed=0, size=SIZE):
    """An IMAGE batch of block pictures."""
    generator = numpy.random.default_rng(seed)
    blocks = generator.integers(0, 256, (count, size // 8, size // 8, 3), dtype=numpy.uint8)
    images = blocks.repeat(8, 1).repeat(8, 2)
    return torch.from_numpy(images).float() / 255


def forget(folders):
    """Remove what earlier runs have left, so that the next one begins."""
    shutil.rmtree(folders / "output" / "live2diff_partial", ignore_errors=True)


@contextmanager
def models_in(folder):
    """Let models/streamingt2v be `folder`."""
    known = folder_paths.folder_names_and_paths
    before = known.get("streamingt2v")
    known["streamingt2v"] = ([str(folder)], {".ckpt", ".pth", ".safetensors"})
    folder_paths.filename_list_cache.pop("streamingt2v", None)
    try:
        yield
    finally:
        known.pop("streamingt2v")
        if before is not None:
            known["streamingt2v"] = before
        folder_paths.filename_list_cache.pop("streamingt2v", None)


def load_t2v(folder, name="streaming_t2v.ckpt"):
    """Run Load StreamingT2V on a file in `folder`: model, CLIP, CLIP_VISION, VAE."""
    with models_in(folder):
        return node("streamingt2v", "Live2DiffLoadStreamingT2V").execute(model=name).args


def load_enhancer(folder, name="non_ema_0035000.pth"):
    """Run Load Video Enhancer on a file in `folder`."""
    with models_in(folder):
        return node("streamingt2v", "Live2DiffLoadVideoEnhancer").execute(enhancer=name).args[0]
