"""ComfyUI's VAE for streams: single frames, with weights that are loaded once for a run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .sd15 import UnsupportedModelError

LATENT_CHANNELS = 4


def check_vae(vae: Any) -> None:
    """Refuse a VAE that is not for SD1.5.

    Raises:
        UnsupportedModelError: its latents have another shape.
    """
    if vae.latent_dim != 2 or vae.latent_channels != LATENT_CHANNELS:
        raise UnsupportedModelError(
            f"This VAE makes latents of {vae.latent_channels} channels and {vae.latent_dim} "
            "dimensions; streams need an SD1.5 VAE (4 channels, 2 dimensions) or TAESD."
        )


class FrameVAE:
    """A VAE whose weights the host has loaded already (see `HostModel`'s companions).

    The host's own `VAE.encode` and `VAE.decode` call the memory manager every time, which takes
    milliseconds and may unload the UNet; they compute the same.
    """

    def __init__(self, vae: Any) -> None:
        """Use a VAE that `check_vae` accepts."""
        self._vae = vae

    @property
    def patcher(self) -> Any:
        """The host's handle of the weights."""
        return self._vae.patcher

    @property
    def device(self) -> torch.device:
        """The device on which it computes."""
        return self._vae.device

    def working_bytes(self, height: int, width: int) -> int:
        """Return the bytes that one frame of this size takes beside the weights."""
        pixels = (1, 3, height, width)
        latent = (1, LATENT_CHANNELS, height // 8, width // 8)
        dtype = self._vae.vae_dtype
        return int(
            max(
                self._vae.memory_used_encode(pixels, dtype),
                self._vae.memory_used_decode(latent, dtype),
            )
        )

    def encode(self, images: Tensor) -> Tensor:
        """Encode frames [F, H, W, 3] in 0..1, sides multiples of 8, to [F, 4, h, w] float32."""
        pixels = self._vae.process_input(images.movedim(-1, 1))
        pixels = pixels.to(self._vae.vae_dtype).to(self._vae.device)
        return self._vae.first_stage_model.encode(pixels).float()

    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latents [F, 4, h, w].

        Returns:
            Frames [F, H, W, 3] in 0..1, float32, on the VAE's device; and on it a 0-d bool, whether
            all that the VAE computed was finite, which frames in 0..1 no longer show.
        """
        latents = latents.to(device=self._vae.device, dtype=self._vae.vae_dtype)
        # Copy the result, because the host's process_output works in place.
        images = self._vae.first_stage_model.decode(latents).to(dtype=torch.float32, copy=True)
        finite = images.isfinite().all()
        return self._vae.process_output(images).movedim(1, -1), finite
