"""Pixels in, pixels out: VAE, depth and session as one step per frame, each loaded once."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from ..depth.ranges import RunningRange, normalise_running
from ..stream.session import NoModel, StreamSession
from ..stream.similar_frames import SimilarFrameFilter, SkipRule


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

    Attributes:
        session: the stream of latents.
        similar: which frames are skipped.
        depth_range: range of the depths so far.
        seconds: time spent so far in "vae encode", "depth", "model" and "vae decode".
    """

    def __init__(self, session: StreamSession, seed: int = 0) -> None:
        """Start on a session, which may have frames behind it; attach models before feeding it.

        Args:
            session: becomes the translator's own.
            seed: of the random part of skipping similar frames.
        """
        self.session = session
        self.similar = SimilarFrameFilter(seed)
        self.depth_range = RunningRange()
        self.seconds: dict[str, float] = defaultdict(float)
        # Finished frames that wait for the VAE, and pictures that wait to be taken.
        self._latents: list[Tensor] = []
        self._pictures: list[Tensor] = []
        self._decoded: tuple[Tensor, Tensor] | None = None
        self._scale: Any = None
        self._vae: FrameCoder | None = None
        self._depth: DepthEstimator | None = None
        self._resize_depth: Any = None

    def attach(
        self,
        scale: Any,
        vae: FrameCoder,
        depth: DepthEstimator | None = None,
        resize_depth: Any = None,
        similar: SkipRule | None = None,
    ) -> None:
        """Take opened models: for a run, or, as live streams do, for each of many prompts."""
        self._scale, self._vae, self._depth = scale, vae, depth
        self._resize_depth = resize_depth
        encoder = None if depth is None else scale.encode_depth
        self.session.attach(scale, encoder, scale.timelines)
        if similar is None:
            self.similar.reset()
        self.similar.settings = similar

    def detach(self) -> None:
        """Let go of all models, so that the host can free them; the state stays."""
        self._scale = self._vae = self._depth = self._resize_depth = None
        self.session.attach(NoModel(), None)

    def push(self, image: Tensor) -> list[Tensor]:
        """Feed one frame [H, W, 3] in 0..1 and take those that are finished, likewise.

        If encoding or the model raises, the stream is as it was before: push the same frame again.
        If decoding raises, the frame is in, and what is finished comes with the next one.
        """
        if self._skips(image):
            self._latents += self.session.repeat()
        else:
            self._latents += self._translate(image)
        while self._latents:
            self._decode_one()
        pictures, self._pictures = self._pictures, []
        return pictures

    def drain(self) -> Iterator[Tensor]:
        """End the stream and yield the frames still inside, [H, W, 3] each."""
        finished = self.session.drain()
        while True:
            if self._pictures:
                yield self._pictures.pop(0)
            elif self._latents:
                self._decode_one()
            else:
                with self._timed("model"):
                    x0 = next(finished, None)
                if x0 is None:
                    return
                self._latents.append(x0)

    def reset(self) -> None:
        """Start over with frame 0."""
        self.session.reset()
        self.depth_range = RunningRange()
        self._latents, self._pictures = [], []
        self.similar.reset()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that decides how the stream goes on."""
        parts = {
            "depth_range": self.depth_range.state_dict(),
            "session": self.session.state_dict(),
            "similar": self.similar.state_dict(),
            "latents": {str(i): x0 for i, x0 in enumerate(self._latents)},
            "pictures": {str(i): picture for i, picture in enumerate(self._pictures)},
        }
        return {f"{part}/{k}": v for part, state in parts.items() for k, v in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where `state_dict` was taken, on the device of the model that is attached."""
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in state.items():
            part, rest = name.split("/", 1)
            parts[part][rest] = tensor
        device = getattr(self._scale, "device", None)
        self.session.load_state_dict(parts["session"], device)
        self.depth_range = RunningRange.from_state_dict(parts["depth_range"])
        self._latents = [x0.to(device) for x0 in _in_order(parts["latents"])]
        self._pictures = _in_order(parts["pictures"])
        self.similar.load_state_dict(parts["similar"])

    def _skips(self, image: Tensor) -> bool:
        """Decide whether a frame is skipped, and remember the decision."""
        session, similar = self.session, self.similar
        if similar.settings is None or not session.can_repeat:
            return False
        if not similar.skips(session.frames_in, _centred(image)):
            return False
        similar.skipped()
        return True

    def _translate(self, image: Tensor) -> list[Tensor]:
        """Encode a frame and push it through the session."""
        with self._timed("vae encode"):
            latent = self._encode(image.unsqueeze(0))
        depth, depth_range = None, self.depth_range
        if self._depth is not None:
            with self._timed("depth"):
                picture, depth_range = self._depth_picture(image)
            with self._timed("vae encode"):
                depth = self._encode(picture)
        with self._timed("model"):
            finished = self.session.push(latent, depth)
        self.depth_range = depth_range
        if self.similar.settings is not None:
            self.similar.translated(_centred(image))
        return finished

    def _decode_one(self) -> None:
        """Turn the next finished latent into a picture; it stays where it is if that fails."""
        x0 = self._latents[0]
        # Frames that repeat one share its latent: it is decoded once.
        if self._decoded is None or self._decoded[0] is not x0:
            with self._timed("vae decode"):
                self._decoded = (x0, self._picture(x0))
        self._pictures.append(self._decoded[1])
        self._latents.pop(0)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

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


def _in_order(state: Mapping[str, Tensor]) -> list[Tensor]:
    return [state[str(index)] for index in range(len(state))]


def _centred(image: Tensor) -> Tensor:
    """Pixels in -1..1, as the VAE takes them: in 0..1 all pictures point in one direction."""
    return image * 2.0 - 1.0


def frame_tensor(image: Any) -> Tensor:
    """Turn a uint8 picture [H, W, 3] into float32 in 0..1."""
    return torch.from_numpy(image).float() / 255.0
