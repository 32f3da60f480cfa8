"""ComfyUI's VAE for streams: single frames, with weights that are loaded once for a run."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor, nn

from ..stream.faults import is_finite
from .out_of_memory import unless_short
from .sd15 import UnsupportedModelError

LATENT_CHANNELS = 4
# Pixels of a side per latent pixel.
SCALE = 8
# Sides of tiles in latent pixels; the first one is the host's.
_LARGEST_TILE, _SMALLEST_TILE = 64, 8
# Attributes of the host's layers under dynamic VRAM.
_HANDLES = ("_v", "_prefetch")


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
    milliseconds and may unload the UNet; they compute the same. Like them it goes on in tiles once
    a whole frame has run out of memory.

    Attributes:
        tile: side of the tiles in latent pixels; 0 for whole frames.
        short: whether a copy in float32 was asked for, and there was no memory for it.
    """

    def __init__(self, vae: Any) -> None:
        """Use a VAE that `check_vae` accepts."""
        self._vae, self.tile, self.short = vae, 0, False
        self._exact: Any = None
        self._making = threading.Lock()

    @property
    def patcher(self) -> Any:
        """The host's handle of the weights."""
        return self._vae.patcher

    @property
    def device(self) -> torch.device:
        """The device on which it computes."""
        return self._vae.device

    @property
    def half(self) -> bool:
        """Whether it computes in less than float32, so that trying again in float32 may help."""
        return self._vae.vae_dtype != torch.float32

    def working_bytes(self, height: int, width: int) -> int:
        """Return the bytes that one frame of this size takes beside the weights."""
        pixels = (1, 3, height, width)
        latent = (1, LATENT_CHANNELS, height // SCALE, width // SCALE)
        dtype = self._vae.vae_dtype
        return int(
            max(
                self._vae.memory_used_encode(pixels, dtype),
                self._vae.memory_used_decode(latent, dtype),
            )
        )

    def encode(self, images: Tensor, exact: bool = False) -> Tensor:
        """Encode frames [F, H, W, 3] in 0..1, sides multiples of 8, to [F, 4, h, w] float32.

        Args:
            images: see above.
            exact: compute in float32, whatever the host has loaded, if there is memory for it.
        """
        dtype, model = self._computing(exact)
        images = images.movedim(-1, 1)

        def whole(part: Tensor) -> Tensor:
            pixels = self._vae.process_input(part).to(dtype).to(self.device)
            return model.encode(pixels).float()

        tiled = partial(_tiled, whole, images, SCALE, 1 / SCALE, LATENT_CHANNELS, self.device)
        self.tile, latents = self._within_memory(lambda: whole(images), tiled, images.shape, SCALE)
        return latents

    def decode(self, latents: Tensor, exact: bool = False) -> tuple[Tensor, Tensor]:
        """Decode latents [F, 4, h, w].

        Args:
            latents: see above.
            exact: compute in float32, whatever the host has loaded, if there is memory for it, and
                without a change of `tile`: other threads than that of the stream may do so.

        Returns:
            Frames [F, H, W, 3] in 0..1, float32, on the VAE's device; and on it a 0-d bool, whether
            all that the VAE computed was finite, which frames in 0..1 no longer show.
        """
        dtype, model = self._computing(exact)

        def whole(part: Tensor) -> Tensor:
            # Copy the result, because the host's process_output works in place.
            part = part.to(device=self.device, dtype=dtype)
            return model.decode(part).to(dtype=torch.float32, copy=True)

        tiled = partial(_tiled, whole, latents, 1, SCALE, 3, self.device)
        tile, images = self._within_memory(lambda: whole(latents), tiled, latents.shape, 1)
        if not exact:
            self.tile = tile
        finite = is_finite(images)
        return self._vae.process_output(images).movedim(1, -1), finite

    def _within_memory(
        self,
        whole: Callable[[], Tensor],
        tiled: Callable[[int], Tensor],
        shape: torch.Size,
        scale: int,
    ) -> tuple[int, Tensor]:
        """Compute with tiles of `tile`, and with smaller ones whenever memory runs out.

        Args:
            whole: computes all at once.
            tiled: computes in tiles of a side in latent pixels.
            shape: [F, C, H, W] of what goes in.
            scale: its pixels per latent pixel.

        Returns:
            The side of the tiles that fitted, and the result.
        """
        tile, side = self.tile, max(shape[2:]) // scale
        while True:
            try:
                return tile, tiled(tile) if tile else whole()
            except Exception as error:
                if not comfy.model_management.is_oom(error) or 0 < tile <= _SMALLEST_TILE:
                    raise
            # Behind the handler, because the error holds the tensors of the failed try.
            comfy.model_management.soft_empty_cache()
            tile = (tile or 2 * _LARGEST_TILE) // 2
            while tile > max(side // 2, _SMALLEST_TILE):
                tile //= 2

    def _computing(self, exact: bool) -> tuple[torch.dtype, Any]:
        """Return the dtype in which to compute, and the host's model or a copy in float32."""
        loaded = self._vae.first_stage_model
        if exact and self.half:
            with self._making:
                if self._exact is None and not self.short:
                    self._exact = unless_short(lambda: float32_copy(loaded, self.device))
                    self.short = self._exact is None
            if self._exact is not None:
                return torch.float32, self._exact
        return self._vae.vae_dtype, loaded


def float32_copy(model: nn.Module, device: torch.device) -> nn.Module:
    """Copy a model of the host's layers to float32 on `device`; the model stays as it is."""

    def exact(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, torch.float32 if tensor.is_floating_point() else None)

    memo: dict[int, Any] = {
        id(p): nn.Parameter(exact(p), requires_grad=False) for p in model.parameters()
    }
    memo |= {id(buffer): exact(buffer) for buffer in model.buffers()}
    # The host's handles of weights that it loads piece by piece, which the copy does without.
    handles = [vars(m)[name] for m in model.modules() for name in _HANDLES if name in vars(m)]
    memo |= {id(handle): None for handle in handles}
    made = copy.deepcopy(model, memo)
    for module in made.modules():
        for name in _HANDLES:
            vars(module).pop(name, None)
    return made


def _tiled(
    compute: Callable[[Tensor], Tensor],
    whole: Tensor,
    unit: int,
    scale: float,
    channels: int,
    device: torch.device,
    tile: int,
) -> Tensor:
    """Compute in overlapping tiles, as the host does: the mean of three ways to cut.

    Args:
        compute: maps [F, c, H, W] to [F, channels, scale * H, scale * W].
        whole: [F, c, H, W].
        unit: its pixels per latent pixel.
        scale, channels, device: of the result.
        tile: side of the tiles in latent pixels.
    """
    side = tile * unit
    cuts = ((side // 2, side * 2), (side * 2, side // 2), (side, side))
    parts = [
        comfy.utils.tiled_scale(
            whole,
            compute,
            tile_x=across,
            tile_y=down,
            overlap=side // 8 if scale < 1 else side // 4,
            upscale_amount=scale,
            out_channels=channels,
            output_device=device,
        )
        for across, down in cuts
    ]
    return (parts[0] + parts[1] + parts[2]) / 3.0
