"""A long video, chunk by chunk: given frames pass, the others are made of those before them.

Paper: Henschel et al., "StreamingT2V", section 4. The first chunk is given, or made by the base
model alone. Every later chunk has 16 frames, of which the first 8 re-create the last 8 of the chunk
before and are discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..run.notices import Notices
from ..run.picture_stream import StreamCounts
from ..run.stage_times import StageSeconds
from ..run.translator import to_float, to_uint8
from ..stream.noise import FrameNoise
from ..stream.state import State, floats, in_order, integers, join, numbered, part, require
from ..stream.transfer import HostCopy
from ..video.scene_detector import FRAMES_BEHIND, SceneDetector
from .given_frames import CHUNK, MADE, SHARED, GivenFramesError, is_request
from .opened import OpenedT2V
from .sampling import DDIM, DPMSolver, Solver, T2VGuidance, grey, sample_chunk
from .settings import LongVideoSettings
from .texts import is_cut_off, text_of_frame, unreached

# Draws the noise of (chunk, step), see `sampling.StepNoise`: [4, 16, h, w].
ChunkNoise = Callable[[int, int], Tensor]


class Made(NamedTuple):
    """The frames of a chunk that count.

    Attributes:
        pictures: [H, W, 3] each, in 0..1.
        finite: 0-d bools, whether they are.
    """

    pictures: list[Tensor]
    finite: list[Tensor]


class LongVideo:
    """A `PictureStream` of given frames, then of requests for frames.

    Its state are the last frames, the anchor and the frames that wait to be asked for. A failed
    call changes nothing. Frames are neither rounded nor encoded between chunks.

    Args:
        spec: models, texts and settings.
        noise: draws all noise; by default every frame of every chunk has its own, by the seed.
    """

    def __init__(self, spec: LongVideoSettings, noise: ChunkNoise | None = None) -> None:
        """Start without frames."""
        self._spec, self._draw = spec, noise or self._own_noise
        self.notices = Notices()
        self.seconds = StageSeconds()
        self.reset()

    @property
    def frames_in(self) -> int:
        """Frames that were given or asked for."""
        return self._frames_in

    def reset(self) -> None:
        """Start over with frame 0."""
        self._frames_in = self._chunks = 0
        # [H, W, 3] each, in 0..1: what the next chunk goes on from, and the picture of its look.
        self._recent: list[Tensor] = []
        self._anchor: Tensor | None = None
        self._waiting: list[HostCopy] = []
        self._embedded: Tensor | None = None
        self._scenes: SceneDetector | None = None

    def open(self, opened: OpenedT2V) -> None:
        """Tell of texts that are too long."""
        for what, conds in self._spec.prompts.items():
            if is_cut_off(conds, self._spec.text_tokens):
                self.notices.warn(
                    f"The {what} is too long for this model, which reads its first "
                    f"{self._spec.text_tokens} tokens (about 50 words)."
                )

    def push(self, opened: OpenedT2V, picture: Tensor) -> list[HostCopy]:
        """Let a given frame pass, or make one.

        Args:
            opened: the models.
            picture: uint8 [H, W, 3], or a request (see `given_frames`).

        Returns:
            One picture, uint8 [H, W, 3].

        Raises:
            GivenFramesError: the first request comes behind 2 to 15 given frames.
        """
        if not is_request(picture):
            self._give(picture)
            self._frames_in += 1
            return [HostCopy(picture)]
        if not self._waiting:
            self._make(opened)
        self._frames_in += 1
        return [self._waiting.pop(0)]

    def finish(self, opened: OpenedT2V) -> list[HostCopy]:
        """Return nothing: no call keeps a finished frame that was asked for."""
        return []

    def drain(self, opened: OpenedT2V) -> Iterator[HostCopy]:
        """End the video; nothing is inside."""
        yield from ()

    def tell_at_end(self, opened: OpenedT2V) -> None:
        """Warn of prompts that begin behind the last frame."""
        for start in unreached(self._spec.positive, self._frames_in):
            self.notices.warn(
                f"the prompt that starts at frame {start} was never shown: there are only "
                f"{self._frames_in} frames (0 to {self._frames_in - 1})."
            )

    def _give(self, picture: Tensor) -> None:
        """Take note of a given frame."""
        require(not self._chunks, "a frame was given behind frames that were made")
        if self._anchor is None or (self._spec.anchor_of_scene and self._begins_scene(picture)):
            self._anchor, self._embedded = to_float(picture), None
        self._recent = [*self._recent, to_float(picture)][-SHARED:]

    def _begins_scene(self, picture: Tensor) -> bool:
        if self._scenes is None:
            height, width = picture.shape[:2]
            self._scenes = SceneDetector(width, height)
            for earlier in self._recent[-FRAMES_BEHIND - 1 :]:
                self._scenes.begins(to_uint8(earlier).numpy())
        return self._scenes.begins(picture.numpy())

    def _make(self, opened: OpenedT2V) -> None:
        """Make the next frames; only then anything changes."""
        if self._anchor is not None and self._frames_in < CHUNK:
            raise GivenFramesError(
                f"A long video begins with {CHUNK} frames or more, not with {self._frames_in}."
            )
        made = self._first_chunk(opened) if self._anchor is None else self._next_chunk(opened)
        pairs = list(zip(made.pictures, made.finite, strict=True))
        self._waiting = [HostCopy(to_uint8(picture), finite) for picture, finite in pairs]
        kept = [picture.to("cpu") for picture in made.pictures]
        if self._anchor is None:
            self._anchor = kept[0]
        self._recent = [*self._recent, *kept][-SHARED:]
        self._chunks += 1

    def _first_chunk(self, opened: OpenedT2V) -> Made:
        """Make the first chunk by the base model, without memory and anchor."""
        guidance = T2VGuidance.of_text(self._spec.guidance.text)
        return self._sampled(opened, DPMSolver(self._spec.steps), guidance, None, None)

    def _next_chunk(self, opened: OpenedT2V) -> Made:
        """Continue the last frames, with the look of the anchor."""
        guidance = self._spec.guidance
        if self._embedded is None:
            assert self._anchor is not None
            height, width = self._anchor.shape[:2]
            anchor = in_signs(self._anchor).unsqueeze(0)
            with self.seconds.timed("image encoder"):
                self._embedded = opened.embed(torch.cat([grey(height, width), anchor]))
        rows = [0 if look == "grey" else 1 for _, look in guidance.rows]
        memory = torch.stack([in_signs(picture) for picture in self._recent])
        ddim = DDIM(self._spec.steps, self._spec.eta)
        return self._sampled(opened, ddim, guidance, self._embedded[rows], memory)

    def _sampled(
        self,
        opened: OpenedT2V,
        solver: Solver,
        guidance: T2VGuidance,
        embedded: Tensor | None,
        memory: Tensor | None,
    ) -> Made:
        spec = self._spec
        texts = [
            text_of_frame(spec.prompts[which], self._frames_in, spec.text_tokens)
            for which, _ in guidance.rows
        ]
        with self.seconds.timed("model"):
            opened.need_unet()
            denoiser = opened.denoiser
            condition = denoiser.condition(torch.cat(texts), embedded, memory)
            noise = partial(self._draw, self._chunks)
            latents = sample_chunk(denoiser, condition, solver, guidance, noise, spec.report)
        first = 0 if memory is None else SHARED
        return self._decoded(opened, latents[0, :, first:])

    def _decoded(self, opened: OpenedT2V, latents: Tensor) -> Made:
        """Decode latents [4, F, h, w], frame by frame."""
        with self.seconds.timed("vae decode"):
            opened.need_vae(*self._spec.height_and_width)
            decoded = [opened.decode(latent) for latent in latents.unbind(1)]
        return Made([picture for picture, _ in decoded], [finite for _, finite in decoded])

    def _own_noise(self, chunk: int, step: int) -> Tensor:
        height, width = (side // 8 for side in self._spec.height_and_width)
        draw, first = FrameNoise(self._spec.seed), chunk * CHUNK
        frames = range(first, first + CHUNK)
        shape = (self._spec.model.denoiser.sizes.latent, height, width)
        return torch.stack([draw(frame, step, shape) for frame in frames], dim=1)

    def state_dict(self) -> State:
        """Return everything that determines how the video continues."""
        return join(
            counts={"frames": torch.tensor([self._frames_in, self._chunks])},
            recent=numbered(self._recent),
            anchor=numbered([] if self._anchor is None else [self._anchor]),
            waiting=numbered([copy.get() for copy in self._waiting]),
        )

    def count_state(self, state: Mapping[str, Tensor]) -> StreamCounts:
        """Check what `state_dict` returned, and count its frames.

        Raises:
            StateError: it is damaged, or of another kind of stream.
        """
        frames_in, chunks = integers(part(state, "counts"), "frames", 2)
        pictures = {name: part(state, name) for name in ("recent", "anchor", "waiting")}
        for found in pictures.values():
            in_order(found)
            for name in found:
                floats(found, name, *self._spec.height_and_width, 3, or_bytes=True)
        recent, anchor, waiting = (len(found) for found in pictures.values())
        require(anchor == min(frames_in, 1), f"it has {anchor} anchors")
        require(recent == min(frames_in, SHARED) or chunks > 0, f"it has {recent} last frames")
        require(waiting < (CHUNK if chunks == 1 else MADE), f"{waiting} frames wait in it")
        return StreamCounts(frames_in, 0)

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned; frames stay on the CPU.

        Raises:
            StateError: it is damaged; nothing has changed then.
        """
        self.count_state(state)
        self.reset()
        self._frames_in, self._chunks = integers(part(state, "counts"), "frames", 2)
        self._recent = in_order(part(state, "recent"))
        self._anchor = next(iter(in_order(part(state, "anchor"))), None)
        self._waiting = [HostCopy(picture) for picture in in_order(part(state, "waiting"))]


def in_signs(picture: Tensor) -> Tensor:
    """From [H, W, 3] in 0..1 to [3, H, W] in -1..1, as CAM and CLIP see pictures."""
    return picture.movedim(-1, 0) * 2 - 1
