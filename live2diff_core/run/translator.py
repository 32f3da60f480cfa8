"""Translates a stream of pictures: VAE, depth and session in one call per frame."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..depth.ranges import RunningRange
from ..stream.session import StreamSession
from ..stream.similar_frames import SimilarFrameFilter
from ..stream.state import State, in_order, join, numbered, part

if TYPE_CHECKING:
    from .opened import OpenStream


class FrameTranslator:
    """A stream of pictures. It holds only state; every call receives the opened models.

    Attributes:
        session: the stream of latents.
        similar: decides which frames are skipped.
        depth_range: range of the depths so far.
        seconds: time spent so far in "vae encode", "depth", "model" and "vae decode".
    """

    def __init__(self, session: StreamSession, similar: SimilarFrameFilter) -> None:
        """Start on a session and a filter, which become the translator's own."""
        self.session, self.similar = session, similar
        self.depth_range = RunningRange()
        self.seconds: dict[str, float] = defaultdict(float)
        # Finished latents that wait for the VAE, and decoded pictures that wait for the caller.
        self._latents: list[Tensor] = []
        self._pictures: list[Tensor] = []
        self._decoded: tuple[Tensor, Tensor] | None = None

    def open(self, opened: OpenStream) -> None:
        """Allocate the stream's memory: once per opening, before anything is pushed."""
        self.session.open(opened.model)

    def push(self, opened: OpenStream, picture: Tensor) -> list[Tensor]:
        """Push one frame and return the finished ones.

        If encoding or the model raises, the stream is unchanged: push the same frame again. If
        decoding raises, the frame has been pushed, and the next call returns the finished frames.

        Args:
            opened: the stream's models.
            picture: [H, W, 3], uint8, or floats in 0..1.

        Returns:
            Finished frames, [H, W, 3] in 0..1 each.
        """
        self._latents += self._push(opened, picture)
        while self._latents:
            self._decode_one(opened)
        pictures, self._pictures = self._pictures, []
        return pictures

    def drain(self, opened: OpenStream) -> Iterator[Tensor]:
        """End the stream and yield the frames still inside, [H, W, 3] in 0..1 each."""
        finished = self.session.drain(opened.model)
        while True:
            if self._pictures:
                yield self._pictures.pop(0)
            elif self._latents:
                self._decode_one(opened)
            else:
                with self._timed("model"):
                    x0 = next(finished, None)
                if x0 is None:
                    return
                self._latents.append(x0)

    def reset(self) -> None:
        """Start over with frame 0."""
        self.session.reset()
        self.similar.reset()
        self.depth_range = RunningRange()
        self._latents, self._pictures = [], []

    def state_dict(self) -> State:
        """Return everything that determines how the stream continues; tensors are not copied."""
        return join(
            depth_range=self.depth_range.state_dict(),
            session=self.session.state_dict(),
            similar=self.similar.state_dict(),
            latents=numbered(self._latents),
            pictures=numbered(self._pictures),
        )

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned, for a model on `device`."""
        self.session.load_state_dict(part(state, "session"), device)
        self.depth_range = RunningRange.from_state_dict(part(state, "depth_range"))
        self._latents = [x0.to(device) for x0 in in_order(part(state, "latents"))]
        self._pictures = in_order(part(state, "pictures"))
        self.similar.load_state_dict(part(state, "similar"))

    def _push(self, opened: OpenStream, picture: Tensor) -> list[Tensor]:
        """Skip a frame or translate it; return x0 of the finished frames."""
        if self.similar.rule is None:
            return self._translate(opened, picture)
        session, model, pixels = self.session, opened.model, to_uint8(picture)
        if session.can_repeat(model) and self.similar.skips(session.frames_in, pixels):
            return session.repeat(model)
        finished = self._translate(opened, picture)
        self.similar.translated(pixels)
        return finished

    def _translate(self, opened: OpenStream, picture: Tensor) -> list[Tensor]:
        """Encode a frame and its depth, and push both through the session."""
        picture = to_float(picture)
        with self._timed("vae encode"):
            latent = opened.encode(picture)
        depth, depth_range = None, self.depth_range
        if opened.reads_depth:
            with self._timed("depth"):
                grey, depth_range = opened.depth_picture(picture, depth_range)
            with self._timed("vae encode"):
                depth = opened.encode(grey)
        with self._timed("model"):
            finished = self.session.push(opened.model, latent, depth)
        self.depth_range = depth_range
        return finished

    def _decode_one(self, opened: OpenStream) -> None:
        """Decode the next finished latent to a picture; it stays in the queue if that fails."""
        x0 = self._latents[0]
        # Repeated frames share one latent, which is decoded once.
        if self._decoded is None or self._decoded[0] is not x0:
            with self._timed("vae decode"):
                self._decoded = (x0, opened.decode(x0))
        self._pictures.append(self._decoded[1])
        self._latents.pop(0)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


def to_float(picture: Tensor) -> Tensor:
    """Convert uint8 to float32 in 0..1; floats stay unchanged."""
    return picture.float() / 255.0 if picture.dtype == torch.uint8 else picture


def to_uint8(picture: Tensor) -> Tensor:
    """Convert floats in 0..1 to uint8, rounded to the nearest; uint8 stays unchanged."""
    if picture.dtype == torch.uint8:
        return picture
    return picture.mul(255.0).round().clamp(0, 255).to(torch.uint8)
