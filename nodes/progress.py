"""The progress of nodes that make videos or clips, shown on the node and in the page's bar."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import latent_preview
from PIL import Image
from torch import Tensor

from ..live2diff_core.run.notices import Notices
from ..live2diff_core.stream.transfer import HostCopy, upload
from .node_text import show_text

PREVIEW_SECONDS, PREVIEW_PIXELS = 0.5, 512


class RunProgress:
    """Shows a progress bar, the time left, a picture of the current frame, and warnings."""

    def __init__(self, node_id: str | None, frames: int | None, notices: Notices) -> None:
        """Start a bar of `frames`, an estimate; None if their number is unknown.

        `notices` are shown below the progress, and once more when the `with` block ends, which may
        be with an error.
        """
        self._node_id, self._frames, self._notices = node_id, frames, notices
        self._finding = self._kept = ""
        self._done = 0
        self._bar = comfy.utils.ProgressBar(frames or 1)
        self._first: int | None = None
        self._start = self._shown = 0.0

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._notices.text or self._kept:
            show_text(self._node_id, self._notices.below(self._text()) + self._kept)

    def keeps(self, path: Path) -> None:
        """Say at the end where the result is kept until a node has saved it."""
        self._kept = f"\nKept until it is saved: {path}"

    def finding(self, frame: int, reached: int) -> None:
        """Show that a resumed run skips to `frame` and has read `reached`; may be interrupted."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._finding = f"Going on at frame {frame}: finding it, {reached} read"
        self._show(self._finding)

    def __call__(self, done: int, picture: HostCopy) -> None:
        """Show that `done` frames are finished, the last one being `picture`: uint8 [H, W, 3].

        Only a picture that is shown is waited for.
        """
        now = time.monotonic()
        if self._first is None:
            # The warm-up's frames come all at once; the frame rate is measured after them.
            self._first, self._start, self._shown = done, now, now
        self._done, total = done, max(self._frames or 0, done)
        preview = None
        if now - self._shown >= PREVIEW_SECONDS or done == self._frames:
            self._shown = now
            image = Image.fromarray(picture.get().numpy())
            preview = ("JPEG", image, min(PREVIEW_PIXELS, max(image.size)))
            self._show(self._text())
        self._bar.update_absolute(done, total, preview)

    def working(self, done: int, steps: int) -> None:
        """Show that `done` of `steps` are done towards the next frames; may be interrupted."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        of_frames = self._text() or f"Frame 0 of {self._frames or 'an unknown number'}"
        self._show(f"{of_frames}, step {done} of {steps}")

    def _show(self, text: str) -> None:
        show_text(self._node_id, self._notices.below(text))

    def _text(self) -> str:
        done, first = self._done, self._first
        if first is None:
            return self._finding
        text = f"Frame {done} of {self._frames or 'an unknown number'}"
        if done == first:
            return text
        rate = (done - first) / max(time.monotonic() - self._start, 1e-6)
        total = max(self._frames or 0, done)
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
