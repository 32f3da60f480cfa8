"""Models that give NaN at one frame, in one place, of the small SD1.5 of the tests."""

from contextlib import contextmanager

import torch
from host_stream import core
from live_stream_inputs import TinyCoder, TinyDepth, TinyVAE, pictures

NAN = float("nan")


@contextmanager
def spoilt(layer, rows_of, value=NAN):
    """Let the output of `layer` hold `value` in the rows that `rows_of(output)` names."""

    def spoil(module, given, output):
        output = output.clone()
        for row in rows_of(output):
            output[row].view(-1)[3] = value
        return output

    handle = layer.register_forward_hook(spoil)
    try:
        yield
    finally:
        handle.remove()


class Rows:
    """The rows of `frames` in the UNet's current call.

    It is a wrapper of the MODEL's UNet: make it before memories are put on.

    Args:
        steps: only at these denoising steps; None for all.
    """

    def __init__(self, model, frames, steps=None):
        self.frames, self.steps, self.now = set(frames), steps, ()
        model.set_model_unet_function_wrapper(self._run)

    def _run(self, apply, call):
        options = call["c"]["transformer_options"]
        plan = options[core("host.call_context").KEY].plan
        conditionings = len(call["input"]) // len(plan.rows)
        hit = [
            row.frame in self.frames and (self.steps is None or row.step in self.steps)
            for row in plan.rows
        ]
        self.now = [n for n, is_hit in enumerate(hit * conditionings) if is_hit]
        return apply(call["input"], call["timestep"], **call["c"])

    def __call__(self, output):
        return self.now


def assert_clean(state):
    """No tensor of a saved state is NaN or infinite."""
    bad = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    assert not bad, bad


def still(x0):
    """Which frames of [F, ...] equal the one before them."""
    return [n for n in range(1, len(x0)) if torch.equal(x0[n], x0[n - 1])]


class HalfCoder(TinyCoder):
    """Overflows in float16 where it is bright, and in nothing else."""

    def __init__(self, encodes=False, decodes=False):
        super().__init__()
        self.encodes, self.decodes = encodes, decodes

    def encode(self, pixels):
        return super().encode(self._through(pixels) if self.encodes else pixels)

    def decode(self, latents):
        # What the tests compare with computes in float32 all the way.
        pictures = super().decode(latents)
        return self._through(pictures) if self.decodes else pictures

    def _through(self, values):
        return values * 1e5 / 1e5 if self.bright(values) else values

    @staticmethod
    def bright(values):
        return bool(values.float().mean() > 0.9)


class HalfVAE(TinyVAE):
    """A TinyVAE that is loaded in `dtype`, float16 if not told otherwise."""

    def __init__(self, coder=None, dtype=torch.float16):
        super().__init__()
        self.vae_dtype = dtype
        self.first_stage_model = (coder or HalfCoder()).to(dtype)
        self.patcher = type(self.patcher)(
            self.first_stage_model, load_device=self.device, offload_device=self.device
        )


class HalfDepth(TinyDepth):
    """Overflows where it is bright, unless it computes in float32."""

    half = True

    def infer(self, images, exact=False):
        depth = super().infer(images)
        return depth if exact or images.mean() < 0.9 else depth * float("inf")


def shades(count, bright, size=(64, 64), seed=0):
    """[F, H, W, 3] in 0..1, dim pictures, and white ones at the frames `bright`."""
    images = pictures(count, size, seed) * 0.7
    for frame in bright:
        images[frame] = 1.0
    return images
