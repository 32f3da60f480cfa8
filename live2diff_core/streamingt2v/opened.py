"""The models of long videos, loaded in turns: only what a stage needs is on the device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import torch
from torch import Tensor

from ..host.memory_need import StreamMemoryError
from ..host.vae import FrameVAE
from ..stream.byte_size import format_bytes
from .denoiser import Denoiser
from .host_parts import LoadedT2V

# The scale factor of the latents.
LATENT_SCALE = 0.18215
# Tensors of the first level that a call's activations take at most at one time. Counted on networks
# of the released shapes, with attention that keeps no scores: 36 of long videos (the output of CAM
# among them), 33 of the enhancer.
_WIDEST = 36


@dataclass(frozen=True)
class StageNeed:
    """Bytes that a stage needs on the device at one time.

    Attributes:
        weights: of its model.
        work: for activations.
    """

    weights: int
    work: int

    @property
    def all(self) -> int:
        """Both together."""
        return self.weights + self.work


def unet_work(rows: int, frames: int, channels: int, height: int, width: int, size: int) -> int:
    """Estimate the bytes of a UNet's activations.

    Args:
        rows, frames: of a call.
        channels: of the first level.
        height, width: of the latents.
        size: bytes of a number.
    """
    return _WIDEST * rows * frames * channels * height * width * size


def check_stages(stages: Mapping[str, StageNeed], held: int, device: torch.device) -> str:
    """Predict the memory of a run whose models work in turns.

    Args:
        stages: by name.
        held: bytes on the device that last from stage to stage.
        device: on which they work.

    Returns:
        The prediction, for the log.

    Raises:
        StreamMemoryError: a stage cannot fit.
    """
    management = comfy.model_management
    on_cpu = management.is_device_cpu(device)
    limit = int(
        management.get_free_memory(device)
        if on_cpu
        else management.get_total_memory(device) - management.extra_reserved_memory()
    )
    parts = "; ".join(
        f"{name}: {format_bytes(need.weights)} of weights and {format_bytes(need.work)} of work"
        for name, need in stages.items()
    )
    # On the CPU the weights lie there already.
    most = held + max(need.work if on_cpu else need.all for need in stages.values())
    text = f"{format_bytes(most)} of {format_bytes(limit)} at most, in turns ({parts})"
    if most > limit:
        raise StreamMemoryError(
            f"The video needs at least {format_bytes(most)}, but {device} has only "
            f"{format_bytes(limit)} for it ({parts}). Use a smaller size, equal guidance weights, "
            "or smaller chunks."
        )
    return text


class LoadedInTurns:
    """Opened models: a context manager. What works next is loaded by `need`.

    Attributes:
        device: of the UNet and of the stream's state.
        vae: the VAE.
        state_bytes: bytes that one saved state takes at most.
    """

    def __init__(self, unet: Any, vae: Any, unet_bytes: int, state_bytes: int) -> None:
        """Store the models; nothing is loaded yet.

        Args:
            unet: the host's handle of the UNet.
            vae: the host's VAE.
            unet_bytes: of the UNet's activations.
            state_bytes: see the attributes.
        """
        self.device: torch.device = unet.load_device
        self.vae, self.state_bytes = FrameVAE(vae), state_bytes
        self._unet, self._unet_bytes = unet, unet_bytes

    def __enter__(self) -> LoadedInTurns:
        """Load nothing: each stage loads its own model."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the models to the host, which unloads them when it needs the room."""

    def need_unet(self) -> None:
        """Load the UNet."""
        comfy.model_management.load_models_gpu([self._unet], memory_required=self._unet_bytes)

    def need_vae(self, height: int, width: int) -> None:
        """Load the VAE, for pictures of this size."""
        work = self.vae.working_bytes(height, width)
        comfy.model_management.load_models_gpu([self.vae.patcher], memory_required=work)

    def encode(self, picture: Tensor) -> Tensor:
        """Encode a picture [H, W, 3] in 0..1 to a scaled latent [4, h, w], float32."""
        self.need_vae(*picture.shape[:2])
        return self.vae.encode(picture.unsqueeze(0))[0].to(self.device) * LATENT_SCALE

    def decode(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """Decode a scaled latent [4, h, w]; see `FrameVAE.decode`: a picture [H, W, 3]."""
        pictures, finite = self.vae.decode(latent.unsqueeze(0) / LATENT_SCALE)
        return pictures[0], finite & latent.isfinite().all().to(finite.device)


class OpenedT2V(LoadedInTurns):
    """The models of a long video."""

    def __init__(self, model: LoadedT2V, vae: Any, unet_bytes: int, state_bytes: int) -> None:
        """Store the models; nothing is loaded yet."""
        super().__init__(model.patcher, vae, unet_bytes, state_bytes)
        self._model = model

    @property
    def denoiser(self) -> Denoiser:
        """The UNet with CAM and APM."""
        return self._model.denoiser

    def embed(self, pictures: Tensor) -> Tensor:
        """Embed pictures [N, 3, H, W] in -1..1 for APM: [N, E]."""
        return self._model.embed(pictures)
