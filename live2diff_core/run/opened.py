"""A stream's models, loaded for one run, as functions of pictures."""

from __future__ import annotations

import torch
from torch import Tensor

from ..depth.model import DepthModel, resize_depth
from ..depth.ranges import RunningRange, normalise_running
from ..host.model import HostModel
from ..host.vae import FrameVAE


class OpenStream:
    """An opened `StreamSpec`: a context manager that loads its models once.

    Attributes:
        model: ComfyUI's MODEL with its memories and prompts.
    """

    def __init__(self, model: HostModel, vae: FrameVAE | None, depth: DepthModel | None) -> None:
        """Store the models; nothing is loaded yet."""
        self.model, self._vae, self._depth = model, vae, depth

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
    def picture_device(self) -> torch.device:
        """The device on which pictures are encoded and decoded."""
        assert self._vae is not None, "this stream has no VAE"
        return self._vae.device

    @property
    def reads_depth(self) -> bool:
        """Whether every frame needs its depth."""
        return self._depth is not None

    def encode(self, picture: Tensor) -> Tensor:
        """Encode a picture [H, W, 3] in 0..1 to the model's latent [4, h, w]."""
        assert self._vae is not None, "this stream has no VAE"
        return self.model.from_latent(self._vae.encode(picture.unsqueeze(0)))[0]

    def decode(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        """Decode the model's latent [4, h, w].

        Returns:
            A picture [H, W, 3] in 0..1; and a 0-d bool, whether the VAE computed finite values
            only. Both are on `picture_device`.
        """
        assert self._vae is not None, "this stream has no VAE"
        pictures, finite = self._vae.decode(self.model.to_latent(x0).unsqueeze(0))
        return pictures[0], finite

    def depth_picture(
        self, picture: Tensor, depth_range: RunningRange
    ) -> tuple[Tensor, RunningRange]:
        """Estimate depth as 'Estimate Depth' does with a running range.

        Args:
            picture: [H, W, 3] in 0..1.
            depth_range: range of the depths so far.

        Returns:
            The depth in grey, [H, W, 3] in 0..1, and the range after this frame.
        """
        assert self._depth is not None, "this stream has no depth model"
        raw = self._depth.infer(picture.unsqueeze(0))
        depth, depth_range = normalise_running(raw, depth_range)
        depth = resize_depth(depth, picture.shape[0], picture.shape[1])
        return depth[0, ..., None].repeat(1, 1, 3), depth_range
