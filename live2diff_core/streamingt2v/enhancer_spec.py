"""An enhanced video as a run of videos sees it: opened, started, named."""

from __future__ import annotations

import logging
from typing import Any

from ..host.identity import prompt_identity, weights_identity
from .enhanced_video import EnhancedVideo
from .enhancer_settings import EnhanceSettings
from .opened import LoadedInTurns, StageNeed, check_stages, unet_work

# Negative prompt and prompt.
_ROWS = 2
# Of the latents in the front.
_FLOAT_BYTES = 4


class EnhanceSpec(EnhanceSettings):
    """A `PictureSpec` of enhanced videos."""

    def start_translator(self, eight_bit: bool = True) -> EnhancedVideo:
        """Start the stream of frames, which come out as uint8."""
        return EnhancedVideo(self)

    def open(self, latent_size: tuple[int, int], frames: int | None) -> LoadedInTurns:
        """Predict the memory, and return the models as a context manager.

        Raises:
            StreamMemoryError: the video does not fit.
        """
        network, patcher = self.model.network, self.model.patcher
        channels, height, width = self.latent_shape
        work = unet_work(
            *(_ROWS, self.chunks.frames, network.sizes.channels[0], height, width),
            network.dtype.itemsize,
        )
        held = self._front_frames * channels * height * width * _FLOAT_BYTES
        opened = LoadedInTurns(patcher, self.vae, work, held)
        vae_work = opened.vae.working_bytes(self.height, self.width)
        stages = {
            "UNet": StageNeed(patcher.model_size(), work),
            "VAE": StageNeed(opened.vae.patcher.model_size(), vae_work),
        }
        logging.info(
            "Live2Diff: enhancing at %dx%d takes %s.",
            self.width,
            self.height,
            check_stages(stages, held, opened.device),
        )
        return opened

    @property
    def _front_frames(self) -> int:
        """Latents of frames that the front holds at most, and those before it."""
        chunks = self.chunks
        return self.steps * (2 * chunks.stride + 2 * chunks.overlap) + 2 * chunks.frames

    def identity(self) -> dict[str, Any]:
        """Name what cannot change without starting over: JSON values by title."""
        return {
            "model": weights_identity(self.model.network),
            "canvas": f"{self.width}x{self.height}",
            "steps": self.steps,
            "guidance": self.guidance,
            "chunks": f"{self.chunks.frames} frames, {self.chunks.overlap} shared",
            "blended": self.blended,
            "seed": self.seed,
        }

    def content_identity(self) -> dict[str, Any]:
        """Name everything else that determines the result."""
        return {
            "computes in": str(self.model.network.dtype),
            **{kind: prompt_identity(conds) for kind, conds in self.prompts.items()},
            "vae": weights_identity(self.vae.first_stage_model),
        }
