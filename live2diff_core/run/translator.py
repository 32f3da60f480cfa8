"""Translates a stream of pictures: VAE, depth and session in one call per frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..depth.ranges import RunningRange
from ..stream.faults import DEPTH, ENCODE, check_fault, is_finite, no_fault, noted
from ..stream.session import StreamSession
from ..stream.session_state import SessionState, read_session
from ..stream.similar_frames import SimilarFrameFilter
from ..stream.state import State, floats, in_order, join, numbered, part, require
from ..stream.transfer import HostCopy, upload
from .computing import Computing
from .notices import Notices
from .picture_stream import StreamCounts
from .stage_times import StageSeconds
from .unreached import tell_of_unreached_prompts

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

    A frame that becomes NaN or infinite shows the frame before it, and the stream goes on. What it
    costs to notice that is told by the picture (`HostCopy`), and for what enters by a copy that is
    looked at two frames later, when it has long arrived: then the VAE's encoder or the depth model,
    where they compute in less than float32, begin to compute in float32, at the same frame in
    every run. A picture that the decoder cannot make is decoded once more in float32 by the thread
    that waits for it. Once the VAE has run out of memory, it goes on in tiles.

    Attributes:
        session: the stream of latents.
        similar: decides which frames are skipped.
        depth_range: range of the depths so far.
        notices: told of what changes on the way; a run puts its own here.
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
        self.notices = Notices()
        self.seconds = StageSeconds()
        self._decoded: tuple[Tensor, HostCopy] | None = None
        self._begin()

    def _begin(self) -> None:
        self.depth_range = RunningRange()
        # Finished latents that wait for the VAE, with their faults, and decoded pictures that wait
        # for the caller.
        self._latents: list[tuple[Tensor, Tensor]] = []
        self._pictures: list[HostCopy] = []
        self._last: HostCopy | None = None
        self._computing = Computing()

    @property
    def frames_in(self) -> int:
        """Frames that have entered."""
        return self.session.frames_in

    def open(self, opened: OpenStream) -> None:
        """Allocate the stream's memory: once per opening, before anything is pushed."""
        self.session.open(opened.model)
        self._computing.tell(opened)

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
        finished = self._push(opened, picture)
        self._latents += zip(finished, self.session.faults, strict=True)
        return self.finish(opened)

    def finish(self, opened: OpenStream) -> list[HostCopy]:
        """Return finished frames that no call has returned, because decoding had failed."""
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
                with self.seconds.timed("model"):
                    x0 = next(finished, None)
                if x0 is None:
                    return
                self._latents.append((x0, self.session.faults[0]))

    def tell_at_end(self, opened: OpenStream) -> None:
        """Warn of the prompts of a Prompt Schedule that come after the last frame."""
        tell_of_unreached_prompts(self.session, opened.model, self.notices)

    def reset(self) -> None:
        """Start over with frame 0."""
        self.session.reset()
        self.similar.reset()
        self._begin()

    def to(self, device: torch.device) -> None:
        """Move the stream of latents to `device`; it must be opened again before the model runs."""
        self.session.to(device)
        self._latents = [(x0.to(device), fault.to(device)) for x0, fault in self._latents]
        self._decoded = None

    def state_dict(self) -> State:
        """Return everything that determines how the stream continues; tensors are not copied.

        It waits for finished pictures that no call has returned yet.
        """
        return join(
            depth_range=self.depth_range.state_dict(),
            session=self.session.state_dict(),
            similar=self.similar.state_dict(),
            latents=numbered([x0 for x0, _ in self._latents]),
            faults=numbered([fault for _, fault in self._latents]),
            pictures=numbered([picture.get() for picture in self._pictures]),
            last=numbered([] if self._last is None else [self._last.get()]),
            computing=self._computing.state_dict(),
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
        faults, last = part(state, "faults"), part(state, "last")
        for name in faults:
            check_fault(faults, name)
        require(faults.keys() in (set(), latents.keys()), "its faults are not those of its latents")
        require(len(last) < 2, f"it has {len(last)} last pictures")
        Computing.check_state(part(state, "computing"))
        sizes = {picture.shape[:2] for picture in (*in_order(pictures), *in_order(last))}
        if "last" in similar:
            sizes.add(floats(similar, "last", None, None, 3, or_bytes=True).shape[:2])
        require(len(sizes) < 2, "its pictures are of several sizes")
        size = next(iter(sizes), None)
        for shown in (pictures, last):
            for name in shown:
                floats(shown, name, *(size or ()), 3, or_bytes=True)
        delivered = session.frames_out - len(latents) - len(pictures)
        require(delivered >= 0, "more frames are finished than have left")
        return TranslatorState(session, size, delivered)

    @classmethod
    def count_state(cls, state: Mapping[str, Tensor]) -> StreamCounts:
        """Check what `state_dict` returned (see `check_state`), and count its frames."""
        read = cls.check_state(state)
        return StreamCounts(read.session.frames_in, read.session.frames_in - read.delivered)

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned, for a model on `device`; then open it again.

        Earlier versions saved no faults, no last picture, and not how the models compute.

        Raises:
            ValueError: it is damaged, or of another kind of stream; nothing has changed then.
        """
        self.check_state(state)
        self.session.load_state_dict(part(state, "session"), device)
        self.depth_range = RunningRange.from_state_dict(part(state, "depth_range"))
        latents = [x0.to(device) for x0 in in_order(part(state, "latents"))]
        faults = [fault.to(device) for fault in in_order(part(state, "faults"))]
        faults = faults or [no_fault(x0.device) for x0 in latents]
        self._latents = list(zip(latents, faults, strict=True))
        self._computing = Computing.from_state_dict(part(state, "computing"))
        # Version 0.1.0 saved floats for videos, too.
        saved = in_order(part(state, "pictures"))
        self._pictures = [HostCopy(self._delivered(picture)) for picture in saved]
        last = in_order(part(state, "last"))
        self._last = HostCopy(self._delivered(last[0])) if last else None
        self._decoded = None
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
        self._computing.look_back()
        with self.seconds.timed("vae encode"):
            picture = to_float(upload(picture, opened.picture_device))
            latent = self._encode(opened, picture)
            fault = noted(no_fault(latent.device), is_finite(latent), ENCODE)
        depth, depth_range = None, self.depth_range
        if opened.reads_depth:
            with self.seconds.timed("depth"):
                grey, depth_range = opened.depth_picture(picture, depth_range)
                fine = is_finite(grey).to(latent.device, non_blocking=True)
                fault = noted(fault, fine, DEPTH)
            with self.seconds.timed("vae encode"):
                depth = self._encode(opened, grey)
                fault = noted(fault, is_finite(depth), ENCODE)
        with self.seconds.timed("model"):
            finished = self.session.push(opened.model, latent, depth, fault)
        self.depth_range = depth_range
        self._computing.entered(fault)
        return finished

    def _encode(self, opened: OpenStream, picture: Tensor) -> Tensor:
        latent = opened.encode(picture)
        self._computing.note_memory(opened, self.notices)
        return latent

    def _decode_one(self, opened: OpenStream) -> None:
        """Queue the decoding of the next finished latent, which stays inside if that fails."""
        x0, fault = self._latents[0]
        # Repeated frames share one latent, which is decoded once.
        if self._decoded is None or self._decoded[0] is not x0:
            with self.seconds.timed("vae decode"):
                picture, finite = opened.decode(x0)
                self._computing.note_memory(opened, self.notices)
                again = partial(self._decode_again, opened, x0)
                copy = HostCopy(self._delivered(picture), finite, fault, again, self._last)
                self._decoded, self._last = (x0, copy), copy
        self._pictures.append(self._decoded[1])
        self._latents.pop(0)

    def _decode_again(self, opened: OpenStream, x0: Tensor) -> Tensor | None:
        """Decode what came out as NaN or infinite in float32; None if that is not finite either.

        It runs in the thread that waits for the picture.
        """
        found = opened.decode_again(x0)
        if found is None:
            return None
        copy = HostCopy(self._delivered(found[0]), found[1])
        return copy.get() if copy.finite else None

    def _delivered(self, picture: Tensor) -> Tensor:
        """Convert floats in 0..1 to what the stream returns."""
        return to_uint8(picture) if self._eight_bit else to_float(picture)


def to_float(picture: Tensor) -> Tensor:
    """Convert uint8 to float32 in 0..1; floats stay unchanged."""
    return picture.float() / 255.0 if picture.dtype == torch.uint8 else picture


def to_uint8(picture: Tensor) -> Tensor:
    """Convert floats in 0..1 to uint8, rounded to the nearest; uint8 stays unchanged."""
    if picture.dtype == torch.uint8:
        return picture
    return picture.mul(255.0).round().clamp(0, 255).to(torch.uint8)
