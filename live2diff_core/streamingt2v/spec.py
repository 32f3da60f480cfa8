"""A long video as a run of videos sees it: opened, started, named."""

from __future__ import annotations

import logging
from typing import Any

from ..host.identity import prompt_identity, weights_identity
from .given_frames import CHUNK, SHARED
from .long_video import LongVideo
from .opened import OpenedT2V, StageNeed, check_stages, unet_work
from .settings import LongVideoSettings


class LongVideoSpec(LongVideoSettings):
    """A `PictureSpec` of long videos."""

    def start_translator(self, eight_bit: bool = True) -> LongVideo:
        """Start the stream of frames, which come out as uint8."""
        return LongVideo(self)

    def open(self, latent_size: tuple[int, int], frames: int | None) -> OpenedT2V:
        """Predict the memory, and return the models as a context manager.

        Raises:
            StreamMemoryError: the video does not fit.
        """
        denoiser, vision = self.model.denoiser, self.model.clip_vision
        rows, number = len(self.guidance.rows), denoiser.dtype.itemsize
        work = unet_work(rows, CHUNK, denoiser.sizes.channels[0], *latent_size, number)
        opened = OpenedT2V(self.model, self.vae, work, self._state_bytes)
        stages = {
            "UNet": StageNeed(self.model.patcher.model_size(), work),
            "VAE": StageNeed(
                opened.vae.patcher.model_size(), opened.vae.working_bytes(self.height, self.width)
            ),
            "image encoder": StageNeed(vision.patcher.model_size(), 0),
        }
        logging.info(
            "Live2Diff: a long video of %dx%d takes %s.",
            self.width,
            self.height,
            check_stages(stages, 0, opened.device),
        )
        return opened

    @property
    def _state_bytes(self) -> int:
        """Bytes of the last frames and the anchor as floats, and of the frames that wait."""
        picture = 3 * self.height * self.width
        return picture * (4 * (SHARED + 1) + CHUNK)

    def identity(self) -> dict[str, Any]:
        """Name what cannot change without starting over: JSON values by title."""
        return {
            "model": weights_identity(self.model.denoiser),
            "image encoder": weights_identity(self.model.clip_vision.model),
            "steps": self.steps,
            "eta": self.eta,
            "guidance": f"text {self.guidance.text:g}, anchor {self.guidance.anchor:g}",
            "seed": self.seed,
            "anchor": "last scene" if self.anchor_of_scene else "first frame",
        }

    def content_identity(self) -> dict[str, Any]:
        """Name everything else that determines the result."""
        return {
            "computes in": str(self.model.denoiser.dtype),
            **{kind: prompt_identity(conds) for kind, conds in self.prompts.items()},
            "vae": weights_identity(self.vae.first_stage_model),
        }
