"""Pipelined denoising (Live2Diff, section 3.4): frames at different steps share each model call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .call_plan import CallPlan, DenoiseModel, Row, TemporalMemory, plan_call
from .faults import ENCODE, MODEL, NONE, check_fault, is_finite, no_fault, noted, rows_finite
from .guidance import Guidance, GuidanceMode, guide, next_residual, residual_of
from .made_ahead import MadeAhead
from .schedule import ConsistencySchedule
from .state import floats, integers, require

NoiseFn = Callable[[int, int, Sequence[int]], Tensor]
# Frames with the steps before which noise is added to them, and its shape.
NoiseKey = tuple[tuple[Row, ...], torch.Size]


@dataclass(frozen=True)
class FrameInFlight:
    """A frame between its first and last denoising step.

    Attributes:
        frame: index in the stream.
        memory_index: index among the frames since the memory's last reset.
        step: the next denoising step.
        latent: [C, h, w] float32, noised to the level of `step`; x0 after the last step.
        fault: where it became NaN or infinite, see `faults`. Its tensors are finite even then.
        depth: [C0, h, w] depth feature, or None.
        residual: [C, h, w] virtual residual noise (see `guidance`), or None.
    """

    frame: int
    memory_index: int
    step: int
    latent: Tensor
    fault: Tensor
    depth: Tensor | None = None
    residual: Tensor | None = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the frame as tensors by name; not copied."""
        parts = {"latent": self.latent, "depth": self.depth, "residual": self.residual}
        present = {name: tensor for name, tensor in parts.items() if tensor is not None}
        where = torch.tensor([self.frame, self.memory_index, self.step])
        return {"where": where, "fault": self.fault, **present}

    def to(self, device: torch.device) -> FrameInFlight:
        """Return the frame on `device`."""
        return FrameInFlight.from_state_dict(self.state_dict(), device)

    @staticmethod
    def check_state(
        state: Mapping[str, Tensor], shape: Sequence[int], with_depth: bool
    ) -> FrameInFlight:
        """Check what `state_dict` returned, for latents of `shape`; return it as a frame.

        Raises:
            StateError: it is damaged.
        """
        channels, *size = shape
        integers(state, "where", 3)
        floats(state, "latent", channels, *size)
        if "residual" in state:
            floats(state, "residual", channels, *size)
        if with_depth:
            floats(state, "depth", None, *size)
        check_fault(state, "fault")
        known = {"where", "latent", "residual", "fault", *(["depth"] if with_depth else [])}
        require(state.keys() <= known, f"a frame has {', '.join(sorted(state.keys() - known))}")
        return FrameInFlight.from_state_dict(state)

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> FrameInFlight:
        """Restore a frame from its `state_dict`, on `device` or the state's own device.

        States of earlier versions know no faults.
        """
        frame, memory_index, step = state["where"].tolist()
        parts = {name: state[name].to(device) for name in state if name != "where"}
        parts.setdefault("fault", no_fault(parts["latent"].device))
        return cls(frame, memory_index, step, **parts)


class PipelinedDenoiser:
    """Moves frames through the T steps, one step per model call, at most T frames at a time.

    A call that fails (when the user interrupts it, for example) changes neither the pipeline nor
    the memory: the updates of one call, or of all T calls of a group, are committed together.
    """

    def __init__(
        self,
        schedule: ConsistencySchedule,
        noise: NoiseFn,
        memory: TemporalMemory | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        """Start empty.

        Args:
            schedule: the T noise levels.
            noise: (frame, step, shape) to noise; see `FrameNoise`.
            memory: the stream's temporal memory; None denoises every frame alone.
            guidance: None for no guidance; the model itself applies `full`.
        """
        self.schedule = schedule
        self.noise = noise_ahead(noise)
        self.memory = memory
        self.guidance = guidance or Guidance()
        self.in_flight: list[FrameInFlight] = []  # newest first

    def enter(
        self,
        frame: int,
        memory_index: int,
        x0: Tensor,
        depth: Tensor | None,
        fault: Tensor | None = None,
    ) -> FrameInFlight:
        """Add noise to a clean latent `x0` [C, h, w] for its first step; see `FrameInFlight`.

        Where x0 or the depth is not finite, the frame goes on as noise alone, with a fault.
        """
        fault = no_fault(x0.device) if fault is None else fault
        for part in (x0, depth):
            if part is not None:
                fault = noted(fault, is_finite(part), ENCODE)
        bad = fault != NONE
        depth = None if depth is None else depth.masked_fill(bad, 0)
        noise = self.noise.take(((Row(frame, 0),), x0.shape), x0.device)[0]
        latent = self.schedule.add_noise(x0.masked_fill(bad, 0), noise, 0)
        residual = noise if self.guidance.virtual else None
        return FrameInFlight(frame, memory_index, 0, latent, fault, depth, residual)

    def denoise_group(
        self, model: DenoiseModel, group: Sequence[FrameInFlight]
    ) -> list[FrameInFlight]:
        """Denoise the frames of one group through all steps together (the warm-up stage).

        Returns:
            The frames, whose latents are x0.
        """
        frames, steps = list(group), len(self.schedule)
        added = [tuple(Row(frame.frame, step) for frame in group) for step in range(1, steps)]
        self._expect_noise(added, frames[-1])
        with self._committed():
            for _ in range(steps):
                frames = self._call(model, [frames])
        return frames

    def advance(self, model: DenoiseModel, entering: FrameInFlight | None) -> FrameInFlight | None:
        """Denoise every frame in flight, and the entering one if there is one, by one step.

        Returns:
            The frame that finished, whose latent is x0; or None while the pipeline fills.
        """
        rows = ([entering] if entering else []) + self.in_flight
        if entering is not None:
            # The next call has the same steps for frames that are one later.
            added = _added_after(rows, len(self.schedule))
            later = tuple(Row(row.frame + 1, row.step) for row in added)
            self._expect_noise([added, later], entering)
        with self._committed():
            moved = self._call(model, [[row] for row in rows])
        done = moved.pop() if moved[-1].step == len(self.schedule) else None
        self.in_flight = moved
        return done

    def reset(self) -> None:
        """Drop all frames in flight."""
        self.in_flight = []

    @contextmanager
    def _committed(self) -> Iterator[None]:
        """Commit the memory's updates if all calls inside succeed, else discard them."""
        try:
            yield
        except BaseException:
            if self.memory is not None:
                self.memory.discard()
            raise
        if self.memory is not None:
            self.memory.commit()

    def _call(self, model: DenoiseModel, groups: list[list[FrameInFlight]]) -> list[FrameInFlight]:
        """Run the model once, groups at consecutive steps; return all frames after their step."""
        rows = [frame for group in groups for frame in group]
        x = torch.stack([row.latent for row in rows])
        plan = self._plan(groups, rows, x.device)
        denoised = model(x, plan)
        if self.guidance.active is GuidanceMode.INITIALIZE:
            rows = self._with_real_negative(model, rows, x, plan)
        added = _added_after(rows, len(self.schedule))
        noises = iter(self.noise.take((added, x.shape[1:]), x.device) if added else ())
        moved = [self._next(row, x0, noises) for row, x0 in zip(rows, denoised, strict=True)]
        return self._finite(x, moved, plan)

    def _finite(self, x: Tensor, moved: list[FrameInFlight], plan: CallPlan) -> list[FrameInFlight]:
        """Note which frames of a call came out as NaN or infinite, and keep them finite.

        Such a frame goes on with its noisy latent from before the call, and with no residual: it is
        not shown, and no other frame sees it, so that it only has to be finite. All frames of the
        call take part, without a look at the result.

        Args:
            x: [N, C, h, w] the call's input, which is finite.
            moved: the N frames after their step.
            plan: the call.
        """
        latents = torch.stack([frame.latent for frame in moved])
        residuals = [frame.residual for frame in moved if frame.residual is not None]
        finite = rows_finite(latents)
        if residuals:
            together = torch.stack(residuals)
            # Frames behind their last step have none; they are the last rows.
            finite[: len(residuals)] &= rows_finite(together)
        faults = noted(torch.stack([frame.fault for frame in moved]), finite, MODEL)
        if plan.memory is not None:
            plan.memory.settle(faults != NONE)
        kept = torch.where(finite[:, None, None, None], latents, x).unbind()
        if residuals:
            together = torch.where(finite[: len(residuals), None, None, None], together, 0)
            residuals = list(together.unbind())
        rest = [*residuals, *[None] * (len(moved) - len(residuals))]
        return [
            replace(frame, latent=latent, fault=fault, residual=residual)
            for frame, latent, fault, residual in zip(
                moved, kept, faults.unbind(), rest, strict=True
            )
        ]

    def _plan(
        self, groups: list[list[FrameInFlight]], rows: list[FrameInFlight], device: torch.device
    ) -> CallPlan:
        ranges = [range(group[0].memory_index, group[-1].memory_index + 1) for group in groups]
        depth = [row.depth for row in rows if row.depth is not None]
        return plan_call(
            [Row(row.frame, row.step) for row in rows],
            device,
            torch.stack(depth) if depth else None,
            self.memory,
            ranges,
        )

    def _with_real_negative(
        self, model: DenoiseModel, rows: list[FrameInFlight], x: Tensor, plan: CallPlan
    ) -> list[FrameInFlight]:
        """Replace the residual noise of frames at their first step with the predicted one."""
        if plan.rows[0].step != 0:
            return rows
        first, part = next(plan.by_step())
        negatives = model.negative(x[first], part)
        return [
            replace(row, residual=residual_of(row.latent, negative, self.schedule, 0))
            for row, negative in zip(rows[first], negatives, strict=True)
        ] + rows[first.stop :]

    def _next(
        self, row: FrameInFlight, denoised: Tensor, noises: Iterator[Tensor]
    ) -> FrameInFlight:
        """Move a frame from its step to the next noise level, or to x0 after the last step."""
        schedule, step = self.schedule, row.step
        if row.residual is not None:
            denoised = guide(row.latent, denoised, row.residual, self.guidance, schedule, step)
        latent, residual = schedule.consistency_x0(row.latent, denoised, step), None
        if step + 1 < len(schedule):
            noise = next(noises)
            if row.residual is not None:
                residual = next_residual(row.latent, denoised, row.residual, noise, schedule, step)
            latent = schedule.add_noise(latent, noise, step + 1)
        return replace(row, step=step + 1, latent=latent, residual=residual)

    def wait(self, entering: FrameInFlight) -> None:
        """Prepare for the frame behind one that waits for its group."""
        self._expect_noise([], entering)

    def _expect_noise(self, added: Sequence[tuple[Row, ...]], newest: FrameInFlight) -> None:
        """Begin to draw the noise that is `added` after calls, and that of the next frame.

        It is drawn while the model runs, and taken if the stream goes on as it is steady.
        """
        shape, device = newest.latent.shape, newest.latent.device
        keys = ((Row(newest.frame + 1, 0),), *added)
        self.noise.expect([(key, shape) for key in keys if key], device)


def _added_after(rows: Sequence[FrameInFlight], steps: int) -> tuple[Row, ...]:
    """List the frames of a call that get noise after it, with their next steps."""
    return tuple(Row(row.frame, row.step + 1) for row in rows if row.step + 1 < steps)


def noise_ahead(noise: NoiseFn) -> MadeAhead[NoiseKey]:
    """Draw the noise of several frames at once, [n, C, h, w], ahead of its use."""

    def draw(key: NoiseKey) -> Tensor:
        rows, shape = key
        return torch.stack([noise(row.frame, row.step, shape) for row in rows])

    return MadeAhead(draw)
