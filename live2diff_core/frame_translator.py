"""Pixels in, pixels out: VAE, depth and session as one step per frame, each loaded once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from .depth_range import RunningRange, normalise_running
from .session import StreamSession


class DepthEstimator(Protocol):
    """What `DepthModel` offers on loaded weights."""

    def infer(self, images: Tensor) -> Tensor:
        """[F, H, W, 3] in 0..1 to raw inverse depth [F, 384, 384]."""
        ...


class FrameCoder(Protocol):
    """What `FrameVAE` offers on loaded weights."""

    def encode(self, images: Tensor) -> Tensor:
        """[F, H, W, 3] in 0..1 to latents [F, 4, h, w]."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """[F, 4, h, w] to frames [F, H, W, 3] in 0..1."""
        ...


class FrameTranslator:
    """A stream of pictures.

    Args:
        session: the stream of latents.
        scale: the opened `HostModel`, which turns the VAE's latents into the model's and back.
        vae: encodes and decodes single frames.
        depth: estimates depth; None streams without.
        resize_depth: (depth [F, h, w], height, width) to [F, height, width].
    """

    def __init__(
        self,
        session: StreamSession,
        scale: Any,
        vae: FrameCoder | None,
        depth: DepthEstimator | None = None,
        resize_depth: Any = None,
    ) -> None:
        """Put the parts together; the session may have frames behind it."""
        self.session = session
        self._scale = scale
        self._vae = vae
        self._depth = depth
        self._resize_depth = resize_depth
        self.depth_range = RunningRange()

    def attach(
        self,
        scale: Any,
        vae: FrameCoder,
        depth: DepthEstimator | None = None,
        resize_depth: Any = None,
    ) -> None:
        """Go on with other openings of the same models, as live streams do for every prompt."""
        self._scale, self._vae, self._depth = scale, vae, depth
        self._resize_depth = resize_depth
        self.session.attach(scale, None if depth is None else scale.encode_depth)

    def detach(self) -> None:
        """Let go of all models, so that the host can free them; the state stays."""
        self._scale = self._vae = self._depth = None
        self.session.attach(no_model, None)

    def push(self, image: Tensor) -> list[Tensor]:
        """Feed one frame [H, W, 3] in 0..1 and take those that are finished, likewise.

        If anything raises, the stream is as it was before: push the same frame again.
        """
        latent = self._encode(image.unsqueeze(0))
        depth, depth_range = None, self.depth_range
        if self._depth is not None:
            picture, depth_range = self._depth_picture(image)
            depth = self._encode(picture)
        finished = self.session.push(latent, depth)
        self.depth_range = depth_range
        return [self._picture(x0) for x0 in finished]

    def drain(self) -> Iterator[Tensor]:
        """End the stream and yield the frames still inside, [H, W, 3] each."""
        for x0 in self.session.drain():
            yield self._picture(x0)

    def reset(self) -> None:
        """Start over with frame 0."""
        self.session.reset()
        self.depth_range = RunningRange()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that decides how the stream goes on."""
        depth = {f"depth_range/{k}": v for k, v in self.depth_range.state_dict().items()}
        return {**depth, **{f"session/{k}": v for k, v in self.session.state_dict().items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken, on the device of the model that is attached."""
        parts: dict[str, dict[str, Tensor]] = {"depth_range": {}, "session": {}}
        for name, tensor in state.items():
            part, rest = name.split("/", 1)
            parts[part][rest] = tensor
        self.session.load_state_dict(parts["session"], getattr(self._scale, "device", None))
        self.depth_range = RunningRange.from_state_dict(parts["depth_range"])

    def _depth_picture(self, image: Tensor) -> tuple[Tensor, RunningRange]:
        """Estimate depth as 'Estimate Depth' does with a running range: [1, H, W, 3]."""
        assert self._depth is not None
        raw = self._depth.infer(image.unsqueeze(0))
        depth, state = normalise_running(raw, self.depth_range)
        depth = self._resize_depth(depth, image.shape[0], image.shape[1])
        return depth[..., None].repeat(1, 1, 1, 3), state

    def _encode(self, images: Tensor) -> Tensor:
        """Encode one picture [1, H, W, 3] to the model's latent [4, h, w]."""
        assert self._vae is not None, "attach a model first"
        return self._scale.from_latent(self._vae.encode(images))[0]

    def _picture(self, x0: Tensor) -> Tensor:
        assert self._vae is not None, "attach a model first"
        return self._vae.decode(self._scale.to_latent(x0).unsqueeze(0))[0].to("cpu")


def no_model(x: Tensor, plan: Any) -> Tensor:
    """Stand where a model will be attached."""
    raise RuntimeError("this stream has no model now; attach one before feeding it.")


def frame_tensor(image: Any) -> Tensor:
    """Turn a uint8 picture [H, W, 3] into float32 in 0..1."""
    return torch.from_numpy(image).float() / 255.0
