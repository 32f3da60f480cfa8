"""Pipelined denoising (Live2Diff, section 3.4): frames at different steps share each model call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import ConsistencySchedule
from .step_plan import DenoiseModel, Row, StepPlan, TemporalMemory

NoiseFn = Callable[[int, int, Sequence[int]], Tensor]


@dataclass(frozen=True)
class FrameInFlight:
    """A frame on its way through the denoising steps.

    Attributes:
        frame: index in the stream.
        step: denoising step it takes next.
        latent: [C, h, w] float32, noised to the level of `step`.
        depth: [C0, h, w] depth feature that travels with it, or None.
    """

    frame: int
    step: int
    latent: Tensor
    depth: Tensor | None

    def state_dict(self) -> dict[str, Tensor]:
        """The frame as named tensors."""
        depth = {} if self.depth is None else {"depth": self.depth}
        return {"where": torch.tensor([self.frame, self.step]), "latent": self.latent, **depth}

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> FrameInFlight:
        """Make the frame again that `state_dict` gave, on `device` or where the state is."""
        frame, step = state["where"].tolist()
        depth = None if "depth" not in state else state["depth"].to(device)
        return cls(frame, step, state["latent"].to(device), depth)


class PipelinedDenoiser:
    """Moves frames through the T steps, one step per model call, at most T frames at a time.

    A call that fails (an interrupt, say) changes nothing here, and what it wrote to the memory is
    written again by the next try: a step is committed as a whole.
    """

    def __init__(
        self,
        schedule: ConsistencySchedule,
        model: DenoiseModel,
        noise: NoiseFn,
        memory: TemporalMemory | None = None,
    ) -> None:
        """Start empty.

        Args:
            schedule: the T noise levels.
            model: predicts x0 of every row.
            noise: (frame, step, shape) to noise.
            memory: temporal memory; None denoises every frame by itself.
        """
        self.schedule = schedule
        self.model = model
        self.noise = noise
        self.memory = memory
        self.in_flight: list[FrameInFlight] = []  # newest first

    def enter(self, frame: int, x0: Tensor, depth: Tensor | None) -> FrameInFlight:
        """Noise a clean latent [C, h, w] for its first step."""
        latent = self.schedule.add_noise(x0, self._noise(frame, 0, x0), 0)
        return FrameInFlight(frame, 0, latent, depth)

    def denoise_group(self, group: Sequence[FrameInFlight]) -> Tensor:
        """Take the frames of one group through all steps together (the warm-up stage).

        Returns:
            [G, C, h, w] x0 of the frames.
        """
        frames = list(group)
        for _ in range(len(self.schedule)):
            frames = self._call([frames])
        return torch.stack([frame.latent for frame in frames])

    def advance(self, entering: FrameInFlight | None) -> Tensor | None:
        """Take every frame in flight one step further, with a new one in row 0 if there is one.

        Returns:
            [C, h, w] x0 of the frame that finished, or None while the pipeline fills.
        """
        rows = ([entering] if entering else []) + self.in_flight
        moved = self._call([[row] for row in rows])
        done = moved.pop() if moved[-1].step == len(self.schedule) else None
        self.in_flight = moved
        return done.latent if done else None

    def reset(self) -> None:
        """Drop all frames in flight."""
        self.in_flight = []

    def _call(self, groups: list[list[FrameInFlight]]) -> list[FrameInFlight]:
        """Run the model once, group r at the r-th of consecutive steps; return all, moved on."""
        rows = [frame for group in groups for frame in group]
        x = torch.stack([row.latent for row in rows])
        denoised = self.model(x, self._plan(groups, rows, x.device))
        return [self._next(row, x0) for row, x0 in zip(rows, denoised, strict=True)]

    def _plan(
        self, groups: list[list[FrameInFlight]], rows: list[FrameInFlight], device: torch.device
    ) -> StepPlan:
        first = rows[0].step
        ranges = [range(group[0].frame, group[-1].frame + 1) for group in groups]
        depth = [row.depth for row in rows if row.depth is not None]
        return StepPlan(
            rows=tuple(Row(row.frame, row.step) for row in rows),
            depth=torch.stack(depth) if depth else None,
            memory=self.memory
            and self.memory.plan(ranges, range(first, first + len(groups)), device),
        )

    def _next(self, row: FrameInFlight, denoised: Tensor) -> FrameInFlight:
        """Take a frame's consistency step: to x0 after the last one, else to the next level."""
        latent = self.schedule.consistency_x0(row.latent, denoised, row.step)
        step = row.step + 1
        if step < len(self.schedule):
            noise = self._noise(row.frame, step, latent)
            latent = self.schedule.add_noise(latent, noise, step)
        return FrameInFlight(row.frame, step, latent, row.depth)

    def _noise(self, frame: int, step: int, like: Tensor) -> Tensor:
        return self.noise(frame, step, like.shape).to(like.device, like.dtype)
