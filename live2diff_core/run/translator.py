"""Translates a stream of pictures: VAE, depth and session in one call per frame."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..depth.ranges import RunningRange
from ..stream.session import StreamSession
from ..stream.session_state import SessionState, read_session
from ..stream.similar_frames import SimilarFrameFilter
from ..stream.state import State, floats, in_order, join, numbered, part, require
from ..stream.transfer import HostCopy, upload

if TYPE_CHECKING:
    from .opened import OpenStream


@dataclass(frozen=True)
class TranslatorState:
    """What a translator's state says.

    Attributes:
        session: the state of its session.
        size: (height, width) of the pictures; None without any.
        delivered: pictures that calls have returned.
    """

    session: SessionState
    size: torch.Size | None
    delivered: int


class FrameTranslator:
    """A stream of pictures. It holds only state; every call receives the opened models.

    Finished pictures are on their way to the CPU when they are returned: nothing here waits for
    the device, so that the next frame's work can be queued first.

    Attributes:
        session: the stream of latents.
        similar: decides which frames are skipped.
        depth_range: range of the depths so far.
        seconds: time of this thread so far in "vae encode", "depth", "model" and "vae decode". On
            a GPU that is the time to queue the work, not to do it.
    """

    def __init__(
        self, session: StreamSession, similar: SimilarFrameFilter, eight_bit: bool = False
    ) -> None:
        """Start on a session and a filter, which become the translator's own.

        Args:
            session, similar: see the attributes.
            eight_bit: return pictures as uint8, rounded on the device; else as float32 in 0..1.
        """
        self.session, self.similar, self._eight_bit = session, similar, eight_bit
        self.depth_range = RunningRange()
        self.seconds: dict[str, float] = defaultdict(float)
        # Finished latents that wait for the VAE, and decoded pictures that wait for the caller.
        self._latents: list[Tensor] = []
        self._pictures: list[HostCopy] = []
        self._decoded: tuple[Tensor, HostCopy] | None = None

    def open(self, opened: OpenStream) -> None:
        """Allocate the stream's memory: once per opening, before anything is pushed."""
        self.session.open(opened.model)

    def push(self, opened: OpenStream, picture: Tensor) -> list[HostCopy]:
        """Push one frame and return the finished ones.

        If encoding or the model raises, the stream is unchanged: push the same frame again. If
        decoding raises, the frame has been pushed, and the next call returns the finished frames.

        Args:
            opened: the stream's models.
            picture: [H, W, 3], uint8, or floats in 0..1; crosses to the device as it is.

        Returns:
            Finished frames, [H, W, 3] each.
        """
        self._latents += self._push(opened, picture)
        while self._latents:
            self._decode_one(opened)
        pictures, self._pictures = self._pictures, []
        return pictures

    def drain(self, opened: OpenStream) -> Iterator[HostCopy]:
        """End the stream and yield the frames still inside, [H, W, 3] each."""
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

    def to(self, device: torch.device) -> None:
        """Move the stream of latents to `device`; it must be opened again before the model runs."""
        self.session.to(device)
        self._latents = [x0.to(device) for x0 in self._latents]
        self._decoded = None

    def state_dict(self) -> State:
        """Return everything that determines how the stream continues; tensors are not copied.

        It waits for finished pictures that no call has returned yet.
        """
        return join(
            depth_range=self.depth_range.state_dict(),
            session=self.session.state_dict(),
            similar=self.similar.state_dict(),
            latents=numbered(self._latents),
            pictures=numbered([picture.get() for picture in self._pictures]),
        )

    @staticmethod
    def check_state(state: Mapping[str, Tensor]) -> TranslatorState:
        """Check what `state_dict` returned, as far as it can be checked without a model.

        Raises:
            ValueError: it is damaged.
        """
        session = read_session(part(state, "session"))
        seen = RunningRange.from_state_dict(part(state, "depth_range")).frames
        require(seen <= session.frames_in, f"the depth range is one of {seen} frames")
        similar = part(state, "similar")
        skipped = SimilarFrameFilter.check_state(similar)
        require(skipped < max(session.frames_in, 1), f"{skipped} frames in a row were skipped")
        latents, pictures = part(state, "latents"), part(state, "pictures")
        in_order(latents)
        for name in latents:
            floats(latents, name, *(session.shape or ()))
        sizes = {picture.shape[:2] for picture in in_order(pictures)}
        if "last" in similar:
            sizes.add(floats(similar, "last", None, None, 3, or_bytes=True).shape[:2])
        require(len(sizes) < 2, "its pictures are of several sizes")
        size = next(iter(sizes), None)
        for name in pictures:
            floats(pictures, name, *(size or ()), 3, or_bytes=True)
        delivered = session.frames_out - len(latents) - len(pictures)
        require(delivered >= 0, "more frames are finished than have left")
        return TranslatorState(session, size, delivered)

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned, for a model on `device`.

        Raises:
            ValueError: it is damaged, or of another kind of stream; nothing has changed then.
        """
        self.check_state(state)
        self.session.load_state_dict(part(state, "session"), device)
        self.depth_range = RunningRange.from_state_dict(part(state, "depth_range"))
        self._latents = [x0.to(device) for x0 in in_order(part(state, "latents"))]
        # Version 0.1.0 saved floats for videos, too.
        saved = in_order(part(state, "pictures"))
        self._pictures = [HostCopy(self._delivered(picture)) for picture in saved]
        self.similar.load_state_dict(part(state, "similar"))

    def _push(self, opened: OpenStream, picture: Tensor) -> list[Tensor]:
        """Skip a frame or translate it; return x0 of the finished frames."""
        if self.similar.rule is None:
            return self._translate(opened, picture)
        session, model = self.session, opened.model
        # Pictures of a graph lie on the CPU, where comparing them waits for nothing; those that the
        # host keeps on a GPU (--gpu-only) have to be read back for it.
        pixels = to_uint8(picture).to("cpu")
        if session.can_repeat(model) and self.similar.skips(session.frames_in, pixels):
            return session.repeat(model)
        finished = self._translate(opened, picture)
        self.similar.translated(pixels)
        return finished

    def _translate(self, opened: OpenStream, picture: Tensor) -> list[Tensor]:
        """Encode a frame and its depth, and push both through the session."""
        with self._timed("vae encode"):
            picture = to_float(upload(picture, opened.picture_device))
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
        """Queue the decoding of the next finished latent, which stays inside if that fails."""
        x0 = self._latents[0]
        # Repeated frames share one latent, which is decoded once.
        if self._decoded is None or self._decoded[0] is not x0:
            with self._timed("vae decode"):
                picture, finite = opened.decode(x0)
                self._decoded = (x0, HostCopy(self._delivered(picture), finite))
        self._pictures.append(self._decoded[1])
        self._latents.pop(0)

    def _delivered(self, picture: Tensor) -> Tensor:
        """Convert floats in 0..1 to what the stream returns."""
        return to_uint8(picture) if self._eight_bit else to_float(picture)

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
