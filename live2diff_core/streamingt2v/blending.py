"""Randomized blending: a film of any length, denoised in chunks without seams.

Paper: Henschel et al., "StreamingT2V", section 4.3. In every step the UNet sees the film in chunks
that overlap; in each overlap one frame is drawn from which on the later chunk's prediction counts.
What is blended is the predicted x0, as in the published code, or what the solver makes of it, as in
the paper.

A chunk's step needs of its neighbours only the step before. So the film is refined along a diagonal
front: while its first chunk is in the last step, the second one is in the step before, and so on.
What lies behind the front is finished and what lies before it is not begun: the memory does not
depend on the length, and the result is the same as that of all chunks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..stream.state import State, integers, join, part, require

# From latents [4, C, h, w] of a chunk at a step to x0 of the same shape.
Predict = Callable[[Tensor, int], Tensor]
# One step of the solver: (step, latents, x0, x0 of the step before, noise) to latents.
Solve = Callable[[int, Tensor, Tensor, Tensor | None, Tensor | None], Tensor]


# "x0" as in the published code, "latents" as in the paper.
Blended = Literal["x0", "latents"]


class ChunkError(ValueError):
    """Chunk and overlap do not belong together; the message says what does."""


@dataclass(frozen=True)
class Chunks:
    """How a film is cut.

    Attributes:
        frames: of a chunk.
        overlap: frames that it shares with the next one, at most half of it.
    """

    frames: int = 24
    overlap: int = 8

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ChunkError: they do not fit.
        """
        if not 1 <= self.overlap <= self.frames // 2:
            raise ChunkError(
                f"Chunks of {self.frames} frames can overlap by 1 to {self.frames // 2} frames, "
                f"not by {self.overlap}."
            )

    @property
    def stride(self) -> int:
        """Frames from one chunk to the next."""
        return self.frames - self.overlap


@dataclass(frozen=True)
class Randomness:
    """All random numbers of an enhanced film, as functions of frame, chunk and step.

    Attributes:
        noise: (frame, step) to [4, h, w] of unit variance: the noise that step adds.
        cut: (chunk, step) to the frame of the overlap, 0..overlap-1, from which on the later chunk
            counts.
    """

    noise: Callable[[int, int], Tensor]
    cut: Callable[[int, int], int]


@dataclass(frozen=True)
class Block:
    """The frames of a chunk that no later chunk sees first; of the last chunk all.

    Attributes:
        chunk: index of the chunk.
        latents: [4, F, h, w], before the next step.
        x0: of the step before; None before the first.
        last: whether it is the film's last.
    """

    chunk: int
    latents: Tensor
    x0: Tensor | None = None
    last: bool = False


@dataclass(frozen=True)
class Stage:
    """What waits in one step: a block until the next one comes, and the last chunk's end.

    Attributes:
        held: the block.
        tail: what is blended, of the frames that the held block's chunk shares with the one before
            it: [n, 4, O, h, w], x0 last.
    """

    held: Block | None = None
    tail: Tensor | None = None


class DiagonalFront:
    """Denoises blocks that come one after another; a failed call changes nothing.

    Args:
        steps: of the solver.
        chunks: how the film is cut.
        random: the random numbers.
        blended: what is blended.
    """

    def __init__(
        self, steps: int, chunks: Chunks, random: Randomness, blended: Blended = "x0"
    ) -> None:
        """Start without frames."""
        self._chunks, self._random, self._blended = chunks, random, blended
        self._stages = [Stage() for _ in range(steps)]

    @property
    def busy(self) -> bool:
        """Whether blocks are inside."""
        return any(stage.held is not None for stage in self._stages)

    def push(self, block: Block | None, predict: Predict, solve: Solve) -> list[Block]:
        """Let a block enter the first step, and do one chunk in each step.

        Args:
            block: the next one, before its first step; None behind the last one, until nothing is
                inside.
            predict: the UNet with its guidance.
            solve: the solver.

        Returns:
            The blocks that leave the last step, one at most.
        """
        stages, moving = list(self._stages), block
        for step, stage in enumerate(stages):
            stages[step], moving = self._advance(step, stage, moving, predict, solve)
        self._stages = stages
        return [] if moving is None else [moving]

    def _advance(
        self, step: int, stage: Stage, entering: Block | None, predict: Predict, solve: Solve
    ) -> tuple[Stage, Block | None]:
        """Let a block enter a step, if one does; return the block that leaves it."""
        held = stage.held
        if entering is None:
            if held is None or not held.last:
                return stage, None
            _, moved = self._run(step, stage, held, None, predict, solve)
            return Stage(), moved
        if held is None:
            return replace(stage, held=entering), None
        stage, moved = self._run(step, stage, held, entering, predict, solve)
        return replace(stage, held=entering), moved

    def _run(
        self,
        step: int,
        stage: Stage,
        block: Block,
        ahead: Block | None,
        predict: Predict,
        solve: Solve,
    ) -> tuple[Stage, Block]:
        """Predict a chunk, `block` and the frames it shares with the next one, and do its step."""
        whole = block if ahead is None else _joined(block, ahead, self._chunks.overlap)
        x0 = predict(whole.latents, step)
        found = x0.unsqueeze(0)
        if self._blended == "latents":
            found = torch.stack([self._solved(step, whole, x0, solve), x0])
        tail = found[:, :, -self._chunks.overlap :].clone()
        if stage.tail is not None:
            cut = self._random.cut(block.chunk, step)
            found = torch.cat([stage.tail[:, :, :cut], found[:, :, cut:]], dim=2)
        # Cloned, so that what is shared with the next chunk can be freed.
        own = found[:, :, : block.latents.shape[1]].clone()
        latents = own[0] if len(own) == 2 else self._solved(step, block, own[-1], solve)
        return Stage(None, tail), replace(block, latents=latents, x0=own[-1])

    def _solved(self, step: int, block: Block, x0: Tensor, solve: Solve) -> Tensor:
        noise = self._noise(block, step) if step + 1 < len(self._stages) else None
        return solve(step, block.latents, x0, block.x0, noise)

    def _noise(self, block: Block, step: int) -> Tensor:
        first = block.chunk * self._chunks.stride
        frames = range(first, first + block.latents.shape[1])
        noise = torch.stack([self._random.noise(frame, step) for frame in frames], dim=1)
        return noise.to(block.latents)

    def state_dict(self) -> State:
        """Return all that waits as tensors by name; they are not copied."""
        states = [_stage_state(stage) for stage in self._stages]
        return join(**{str(step): state for step, state in enumerate(states)})

    def check_state(self, state: Mapping[str, Tensor], shape: tuple[int, int, int] | None) -> None:
        """Check what `state_dict` returned, of latents [4, h, w] of `shape`.

        Raises:
            StateError: it is damaged, or of other steps or chunks.
        """
        known = {str(step) for step in range(len(self._stages))}
        require({name.split("/")[0] for name in state} <= known, "it is one of more steps")
        for step in known:
            self._check_stage(part(state, step), shape)

    def _check_stage(self, state: Mapping[str, Tensor], shape: tuple[int, int, int] | None) -> None:
        _, last = integers(state, "chunk", 2) if "chunk" in state else (0, 0)
        length = self._chunks.frames if last else self._chunks.stride
        overlap = self._chunks.overlap
        for name, frames in (("latents", length), ("x0", length), ("tail", overlap)):
            if name in state:
                found, wanted = tuple(state[name].shape), _framed(shape, frames)
                if name == "tail":
                    wanted = (1 if self._blended == "x0" else 2, *wanted)
                require(found == wanted, f"'{name}' of a step is {found} in place of {wanted}")
                require(state[name].is_floating_point(), f"'{name}' of a step is no latents")
        require(
            ("chunk" in state) == ("latents" in state)
            and ("x0" not in state or "latents" in state),
            "a step lacks what waits in it",
        )

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device | None) -> None:
        """Restore what `check_state` accepts, on `device`."""
        steps = range(len(self._stages))
        self._stages = [_stage_from(part(state, str(step)), device) for step in steps]

    def reset(self) -> None:
        """Drop all frames."""
        self._stages = [Stage() for _ in self._stages]


def _joined(block: Block, ahead: Block, frames: int) -> Block:
    """Return `block` with the first frames of the block `ahead`."""
    latents = torch.cat([block.latents, ahead.latents[:, :frames]], dim=1)
    if block.x0 is None or ahead.x0 is None:
        return replace(block, latents=latents)
    return replace(block, latents=latents, x0=torch.cat([block.x0, ahead.x0[:, :frames]], dim=1))


def _framed(shape: tuple[int, int, int] | None, frames: int) -> tuple[int, ...]:
    return () if shape is None else (shape[0], frames, *shape[1:])


def _stage_state(stage: Stage) -> State:
    found: State = {}
    if stage.held is not None:
        named = torch.tensor([stage.held.chunk, int(stage.held.last)])
        found = {"chunk": named, "latents": stage.held.latents}
        if stage.held.x0 is not None:
            found["x0"] = stage.held.x0
    if stage.tail is not None:
        found["tail"] = stage.tail
    return found


def _stage_from(state: Mapping[str, Tensor], device: torch.device | None) -> Stage:
    moved = {name: tensor.to(device) for name, tensor in state.items() if name != "chunk"}
    held = None
    if "latents" in state:
        chunk, last = state["chunk"].tolist()
        held = Block(chunk, moved["latents"], moved.get("x0"), bool(last))
    return Stage(held, moved.get("tail"))
