"""A stream's models, loaded for one run, as functions of pictures."""

from __future__ import annotations

import math
from collections.abc import Set

import torch
from torch import Tensor

from ..depth.model import DepthModel, resize_depth
from ..depth.ranges import RunningRange, is_depth, normalise_running
from ..host.model import HostModel
from ..host.out_of_memory import unless_short
from ..host.vae import FrameVAE
from ..stream.faults import DEPTH, ENCODE


class OpenStream:
    """An opened `StreamSpec`: a context manager that loads its models once.

    Attributes:
        model: ComfyUI's MODEL with its memories and prompts.
        exact: the places (see `stream.faults`) that compute in float32 whatever the host has
            loaded: `ENCODE`, `DEPTH` or both.
    """

    def __init__(self, model: HostModel, vae: FrameVAE | None, depth: DepthModel | None) -> None:
        """Store the models; nothing is loaded yet."""
        self.model, self._vae, self._depth = model, vae, depth
        self._depth_short = False
        self.exact: Set[int] = frozenset()

    def __enter__(self) -> OpenStream:
        """Load all models."""
        self.model.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Release all models."""
        self.model.__exit__()

    @property
    def device(self) -> torch.device:
        """The device of the latents."""
        return self.model.device

    @property
    def state_bytes(self) -> int:
        """Bytes that one saved state of the stream takes at most."""
        return self.model.memory_bytes

    @property
    def picture_device(self) -> torch.device:
        """The device on which pictures are encoded and decoded."""
        assert self._vae is not None, "this stream has no VAE"
        return self._vae.device

    @property
    def reads_depth(self) -> bool:
        """Whether every frame needs its depth."""
        return self._depth is not None

    @property
    def half(self) -> bool:
        """Whether VAE or depth compute in less than float32, so that `exact` has an effect."""
        return any(model is not None and model.half for model in (self._vae, self._depth))

    @property
    def short(self) -> bool:
        """Whether there was no memory to compute in float32."""
        return self._depth_short or (self._vae is not None and self._vae.short)

    @property
    def tile(self) -> int:
        """Side of the VAE's tiles in latent pixels, 0 for whole frames; see `FrameVAE`."""
        return 0 if self._vae is None else self._vae.tile

    @tile.setter
    def tile(self, tile: int) -> None:
        if self._vae is not None:
            self._vae.tile = tile

    def encode(self, picture: Tensor) -> Tensor:
        """Encode a picture [H, W, 3] in 0..1 to the model's latent [4, h, w]."""
        assert self._vae is not None, "this stream has no VAE"
        latents = self._vae.encode(picture.unsqueeze(0), ENCODE in self.exact)
        return self.model.from_latent(latents)[0]

    def decode(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the model's latent [4, h, w].

        Returns:
            A picture [H, W, 3] in 0..1; and a 0-d bool, whether the VAE computed finite values
            only. Both are on `picture_device`.
        """
        assert self._vae is not None, "this stream has no VAE"
        pictures, finite = self._vae.decode(self.model.to_latent(x0).unsqueeze(0))
        return pictures[0], finite

    def decode_again(self, x0: Tensor) -> tuple[Tensor, Tensor] | None:
        """Decode in float32 what `decode` made NaN or infinite; None if that was float32 already.

        Any thread may call it.
        """
        assert self._vae is not None, "this stream has no VAE"
        if not self._vae.half:
            return None
        pictures, finite = self._vae.decode(self.model.to_latent(x0).unsqueeze(0), exact=True)
        return pictures[0], finite

    def depth_picture(
        self, picture: Tensor, depth_range: RunningRange
    ) -> tuple[Tensor, RunningRange]:
        """Estimate depth as 'Estimate Depth' does with a running range.

        Args:
            picture: [H, W, 3] in 0..1.
            depth_range: range of the depths so far.

        Returns:
            The depth in grey, [H, W, 3] in 0..1, and the range after this frame. All is NaN where
            the depth model gave NaN, infinite or absurd depth.
        """
        assert self._depth is not None, "this stream has no depth model"
        raw = self._raw_depth(self._depth, picture.unsqueeze(0))
        depth, depth_range = normalise_running(raw, depth_range)
        depth = depth.masked_fill(~is_depth(*raw.aminmax()), math.nan)
        depth = resize_depth(depth, picture.shape[0], picture.shape[1])
        return depth[0, ..., None].repeat(1, 1, 3), depth_range

    def _raw_depth(self, model: DepthModel, pictures: Tensor) -> Tensor:
        """Estimate depth in float32 where that is asked for and there is memory for it."""
        if DEPTH in self.exact and not self._depth_short:
            raw = unless_short(lambda: model.infer(pictures, exact=True))
            if raw is not None:
                return raw
            self._depth_short = True
        return model.infer(pictures)
