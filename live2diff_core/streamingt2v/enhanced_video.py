"""A video enhanced along a diagonal front: frames in, refined frames out, some hundred later.

Paper: Henschel et al., "StreamingT2V", section 4.3; see `blending`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..run.notices import Notices
from ..run.picture_stream import StreamCounts
from ..run.stage_times import StageSeconds
from ..run.translator import to_float, to_uint8
from ..stream.noise import FrameNoise, cut_chance
from ..stream.state import State, floats, in_order, integers, join, numbered, part, require
from ..stream.transfer import HostCopy
from .blending import Block, DiagonalFront, Randomness
from .enhancer import ChunkRefiner
from .enhancer_settings import TEXT_TOKENS, EnhanceSettings
from .opened import LoadedInTurns
from .texts import is_cut_off, text_of_frame


class EnhancedVideo:
    """A `PictureStream` that enhances what goes in. A failed call changes nothing.

    Every random number is a function of the seed, the frame or chunk, and the step. Behind the last
    frame its latent is repeated until the last chunk is whole; what is made of that is dropped.

    Args:
        spec: models, texts and settings.
    """

    def __init__(self, spec: EnhanceSettings) -> None:
        """Start without frames."""
        self._spec, self._ladder = spec, spec.ladder
        self.notices = Notices()
        self.seconds = StageSeconds()
        random = Randomness(self._noise, self._cut)
        self._front = DiagonalFront(spec.steps, spec.chunks, random, spec.blended)
        self.reset()

    @property
    def frames_in(self) -> int:
        """Frames that have entered."""
        return self._frames_in

    def reset(self) -> None:
        """Start over with frame 0."""
        self._frames_in = self._delivered = self._blocks = 0
        self._ended = False
        # [4, h, w] each: clean ones before the front, refined ones behind it.
        self._before: list[Tensor] = []
        self._behind: list[Tensor] = []
        self._pictures: list[HostCopy] = []
        self._size: tuple[int, int] | None = None
        self._front.reset()

    def open(self, opened: LoadedInTurns) -> None:
        """Tell of texts that are too long."""
        for what, conds in self._spec.prompts.items():
            if is_cut_off(conds, TEXT_TOKENS):
                self.notices.warn(
                    f"The {what} prompt is too long for this model, which reads its first "
                    f"{TEXT_TOKENS} tokens (about 50 words)."
                )

    def push(self, opened: LoadedInTurns, picture: Tensor) -> list[HostCopy]:
        """Push a frame, uint8 [H, W, 3], no larger than the spec's size; return finished ones."""
        self._size = (picture.shape[0], picture.shape[1])
        with self.seconds.timed("vae encode"):
            latent = opened.encode(self._padded(to_float(picture)))
        before, chunks = [*self._before, latent], self._spec.chunks
        if len(before) > chunks.frames:
            # More follows than this chunk: so it is not the last one.
            block = Block(self._blocks, self._begun(before[: chunks.stride]))
            self._behind += self._advance(opened, block)
            before = before[chunks.stride :]
            self._blocks += 1
        self._before = before
        self._frames_in += 1
        return self.finish(opened)

    def finish(self, opened: LoadedInTurns) -> list[HostCopy]:
        """Return finished frames that no call has returned."""
        while self._behind:
            with self.seconds.timed("vae decode"):
                opened.need_vae(self._spec.height, self._spec.width)
                picture, finite = opened.decode(self._behind[0])
                self._pictures.append(HostCopy(to_uint8(self._cropped(picture)), finite))
            self._behind.pop(0)
        pictures, self._pictures = self._pictures, []
        self._delivered += len(pictures)
        return pictures

    def drain(self, opened: LoadedInTurns) -> Iterator[HostCopy]:
        """End the video and yield the frames still inside."""
        if self._before and not self._ended:
            missing = self._spec.chunks.frames - len(self._before)
            whole = [*self._before, *[self._before[-1]] * missing]
            block = Block(self._blocks, self._begun(whole), last=True)
            self._behind += self._advance(opened, block)
            self._before, self._ended = [], True
        yield from self.finish(opened)
        while self._front.busy:
            refined = self._advance(opened, None)
            rest = self._frames_in - self._delivered - len(self._behind)
            self._behind += refined[:rest]
            yield from self.finish(opened)

    def tell_at_end(self, opened: LoadedInTurns) -> None:
        """Warn of nothing: all settings hold for the whole video."""

    def _advance(self, opened: LoadedInTurns, block: Block | None) -> list[Tensor]:
        """Let a block enter the front, and return the latents of the frames that leave it."""
        spec, calls = self._spec, 0
        texts = [text_of_frame(c, 0, TEXT_TOKENS) for c in (spec.negative, spec.positive)]
        text = torch.cat(texts)
        refine = ChunkRefiner(spec.model.network, self._ladder, text, spec.guidance)

        def predict(latents: Tensor, step: int) -> Tensor:
            nonlocal calls
            spec.report(calls, spec.steps)
            calls += 1
            return refine(latents, step)

        with self.seconds.timed("model"):
            opened.need_unet()
            left = self._front.push(block, predict, self._ladder.step)
        return [frame for each in left for frame in each.latents.unbind(1)]

    def _begun(self, latents: list[Tensor]) -> Tensor:
        """Noise the clean latents of a block to the first level: [4, F, h, w]."""
        clean, first = torch.stack(latents, dim=1), self._blocks * self._spec.chunks.stride
        frames = range(first, first + len(latents))
        noise = torch.stack([self._noise(frame, -1) for frame in frames], dim=1)
        return self._ladder.noised(clean, noise.to(clean))

    def _noise(self, frame: int, step: int) -> Tensor:
        """Draw what a step adds to a frame; -1 for the noise that the film begins with."""
        return FrameNoise(self._spec.seed)(frame, step + 1, self._spec.latent_shape)

    def _cut(self, chunk: int, step: int) -> int:
        # As in the published code, or in the paper.
        ways = self._spec.chunks.overlap + (self._spec.blended == "latents")
        return int(cut_chance(self._spec.seed, chunk, step) * ways)

    def _padded(self, picture: Tensor) -> Tensor:
        """Put a picture [H, W, 3] into the middle of a black one."""
        top, left = self._margins(picture.shape[0], picture.shape[1])
        bottom = self._spec.height - picture.shape[0] - top
        right = self._spec.width - picture.shape[1] - left
        return pad(picture, (0, 0, left, right, top, bottom))

    def _cropped(self, picture: Tensor) -> Tensor:
        assert self._size is not None
        height, width = self._size
        top, left = self._margins(height, width)
        return picture[top : top + height, left : left + width]

    def _margins(self, height: int, width: int) -> tuple[int, int]:
        return (self._spec.height - height) // 2, (self._spec.width - width) // 2

    def state_dict(self) -> State:
        """Return everything that determines how the video continues; tensors are not copied."""
        size = self._size or (0, 0)
        counts = [self._frames_in, self._delivered, self._blocks, int(self._ended), *size]
        return join(
            counts={"frames": torch.tensor(counts)},
            front=self._front.state_dict(),
            before=numbered(self._before),
            behind=numbered(self._behind),
            pictures=numbered([copy.get() for copy in self._pictures]),
        )

    def count_state(self, state: Mapping[str, Tensor]) -> StreamCounts:
        """Check what `state_dict` returned, and count its frames.

        Raises:
            StateError: it is damaged, or of another kind of stream.
        """
        frames_in, delivered, blocks, ended, height, width = self._counts(state)
        self._front.check_state(part(state, "front"), self._spec.latent_shape)
        before, behind = part(state, "before"), part(state, "behind")
        for latents in (before, behind):
            in_order(latents)
            for name in latents:
                floats(latents, name, *self._spec.latent_shape)
        pictures = part(state, "pictures")
        in_order(pictures)
        for name in pictures:
            floats(pictures, name, height, width, 3, or_bytes=True)
        chunks = self._spec.chunks
        entered = frames_in if ended else blocks * chunks.stride + len(before)
        require(entered == frames_in, f"of {frames_in} frames it has {entered}")
        require(len(before) <= chunks.frames, f"{len(before)} frames wait in it")
        require(
            delivered + len(pictures) + len(behind) <= frames_in,
            "more frames are finished than have entered",
        )
        require(height <= self._spec.height and width <= self._spec.width, "its size is wrong")
        return StreamCounts(frames_in, frames_in - delivered)

    @staticmethod
    def _counts(state: Mapping[str, Tensor]) -> list[int]:
        return integers(part(state, "counts"), "frames", 6)

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned, on `device`.

        Raises:
            StateError: it is damaged; nothing has changed then.
        """
        self.count_state(state)
        self.reset()
        frames_in, delivered, blocks, ended, *size = self._counts(state)
        self._frames_in, self._delivered, self._blocks = frames_in, delivered, blocks
        self._ended, self._size = bool(ended), (size[0], size[1]) if all(size) else None
        self._front.load_state_dict(part(state, "front"), device)
        self._before = [latent.to(device) for latent in in_order(part(state, "before"))]
        self._behind = [latent.to(device) for latent in in_order(part(state, "behind"))]
        self._pictures = [HostCopy(picture) for picture in in_order(part(state, "pictures"))]
