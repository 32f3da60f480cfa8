"""The progress of Stream Video and Stream Sampler, shown on the node and in the page's bar."""

import time
from typing import Any

import comfy.model_management
import comfy.utils
import latent_preview
from PIL import Image
from torch import Tensor

from ..live2diff_core.stream.transfer import HostCopy, upload
from .node_text import show_text

PREVIEW_SECONDS, PREVIEW_PIXELS = 0.5, 512


class RunProgress:
    """Shows a progress bar, the time left and a picture of the current frame."""

    def __init__(self, node_id: str | None, frames: int | None) -> None:
        """Start a bar of `frames`, an estimate; None if their number is unknown."""
        self._node_id, self._frames = node_id, frames
        self._bar = comfy.utils.ProgressBar(frames or 1)
        self._first: int | None = None
        self._start = self._shown = 0.0

    def finding(self, frame: int, reached: int) -> None:
        """Show that a resumed run skips to `frame` and has read `reached`; may be interrupted."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        show_text(self._node_id, f"Going on at frame {frame}: finding it, {reached} read")

    def __call__(self, done: int, picture: HostCopy) -> None:
        """Show that `done` frames are finished, the last one being `picture`: uint8 [H, W, 3].

        Only a picture that is shown is waited for.
        """
        now = time.monotonic()
        if self._first is None:
            # The warm-up's frames come all at once; the frame rate is measured after them.
            self._first, self._start, self._shown = done, now, now
        total = max(self._frames or 0, done)
        preview = None
        if now - self._shown >= PREVIEW_SECONDS or done == self._frames:
            self._shown = now
            image = Image.fromarray(picture.get().numpy())
            preview = ("JPEG", image, min(PREVIEW_PIXELS, max(image.size)))
            show_text(self._node_id, self._text(done, total, now - self._start))
        self._bar.update_absolute(done, total, preview)

    def _text(self, done: int, total: int, seconds: float) -> str:
        text = f"Frame {done} of {self._frames or 'an unknown number'}"
        if done == self._first:
            return text
        rate = (done - (self._first or 0)) / max(seconds, 1e-6)
        left = "" if self._frames is None else f", {_clock((total - done) / rate)} left"
        return f"{text}, {rate:.2f} fps{left}"


class LatentProgress:
    """Shows a progress bar and, now and then, the host's preview of the current latent.

    The host's own callback for samplers makes a preview of every frame, for which it waits for the
    device.
    """

    def __init__(self, model: Any, frames: int) -> None:
        """Start a bar of `frames` that come from ComfyUI's MODEL `model`."""
        self._frames, self._shown = frames, float("-inf")
        self._bar = comfy.utils.ProgressBar(frames)
        self._device = model.load_device
        self._previewer = latent_preview.get_previewer(self._device, model.model.latent_format)

    def __call__(self, done: int, x0: Tensor) -> None:
        """Show that `done` frames are finished, the last being `x0`: [4, h, w] on the CPU."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._bar.update_absolute(done, self._frames, self._preview(done, x0))

    def _preview(self, done: int, x0: Tensor) -> Any:
        now = time.monotonic()
        if self._previewer is None:
            return None
        if now - self._shown < PREVIEW_SECONDS and done < self._frames:
            return None
        self._shown = now
        if hasattr(self._previewer, "taesd"):
            # A network, whose weights are there; the host's other previewer follows the latent.
            x0 = upload(x0, self._device)
        return self._previewer.decode_latent_to_preview_image("JPEG", x0.unsqueeze(0))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
