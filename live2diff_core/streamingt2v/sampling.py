"""How a chunk of frames is sampled: DDIM with guidance by text and anchor.

The first chunk, which has no anchor, is sampled by DPM-Solver++, as published.

Paper: Henschel et al., "StreamingT2V", appendix E.2, equation 13. With equal weights, as in the
published code, the row with the text alone cancels out and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from .denoiser import ChunkCondition, Denoiser

TRAIN_STEPS = 1000
_NOISE_LEVELS = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
# Draws the noise of a step: 0 for the start, i for that which step i - 1 adds; [4, F, h, w].
StepNoise = Callable[[int], Tensor]


@dataclass(frozen=True)
class T2VGuidance:
    """The weights of text and anchor.

    Attributes:
        text: of the prompt against the negative prompt.
        anchor: of the anchor frame against none.
    """

    text: float = 7.5
    anchor: float = 7.5

    @classmethod
    def of_text(cls, weight: float) -> T2VGuidance:
        """Return the guidance of a chunk without an anchor."""
        return cls(weight, weight)

    @property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """Text and anchor of a call's rows: "negative" or "positive", "grey" or "anchor"."""
        rows = (("negative", "grey"), ("positive", "anchor"))
        return rows if self.text == self.anchor else (rows[0], ("positive", "grey"), rows[1])

    def __call__(self, eps: Tensor) -> Tensor:
        """Combine the predictions [N, ...] of the rows to one [1, ...]."""
        if len(eps) == 2:
            unconditional, conditional = eps.split(1)
            return unconditional + self.text * (conditional - unconditional)
        null, text, both = eps.split(1)
        return null + self.text * (text - null) + self.anchor * (both - text)


class Solver(Protocol):
    """Steps from noise to a clean chunk.

    Attributes:
        timesteps: [steps], descending.
    """

    timesteps: Tensor

    def step(self, eps: Tensor, step: int, latents: Tensor, noise: Tensor) -> Tensor:
        """Go from the latents of `step` to those of the next one; all are of one shape.

        Args:
            eps: predicted noise.
            step: index of the timestep.
            latents: at that step.
            noise: of unit variance, for solvers that add some.
        """


class DDIM:
    """DDIM as published: 1000 scaled-linear noise levels, of which some are taken, from 1 on.

    Args:
        steps: how many, 1..1000.
        eta: noise added in each step, 0 (none) to 1 (as in DDPM).

    Attributes:
        scheduler: diffusers', which does the steps.
        timesteps: [steps], descending.
    """

    def __init__(self, steps: int, eta: float = 1.0) -> None:
        """Choose the timesteps."""
        self.scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=False, **_NOISE_LEVELS)
        self.scheduler.set_timesteps(steps)
        self._eta = eta
        self.timesteps = self.scheduler.timesteps

    def step(self, eps: Tensor, step: int, latents: Tensor, noise: Tensor | None) -> Tensor:
        """See `Solver.step`; without eta no noise is read."""
        timestep = int(self.timesteps[step])
        return self.scheduler.step(
            eps, timestep, latents, eta=self._eta, variance_noise=noise, return_dict=False
        )[0]


class DPMSolver:
    """DPM-Solver++ 2M, with which the published code makes the first chunk; it adds no noise.

    It remembers the step before, so it is made for one chunk, whose steps it does in order. What
    the published code leaves open are diffusers' defaults, as there.

    Args:
        steps: how many, 1..1000.
    """

    def __init__(self, steps: int) -> None:
        """Choose the timesteps."""
        self._scheduler = DPMSolverMultistepScheduler(**_NOISE_LEVELS)
        self._scheduler.set_timesteps(steps)
        self.timesteps = self._scheduler.timesteps

    def step(self, eps: Tensor, step: int, latents: Tensor, noise: Tensor | None) -> Tensor:
        """See `Solver.step`; no noise is read."""
        timestep = int(self.timesteps[step])
        return self._scheduler.step(eps, timestep, latents, return_dict=False)[0]


def sample_chunk(
    denoiser: Denoiser,
    condition: ChunkCondition,
    solver: Solver,
    guidance: T2VGuidance,
    noise: StepNoise,
    report: Callable[[int, int], object] = lambda done, steps: None,
) -> Tensor:
    """Sample a chunk: latents [1, 4, F, h, w], float32.

    Args:
        denoiser: the model.
        condition: of the chunk, with the rows of `guidance`.
        solver: the steps.
        guidance: the weights.
        noise: of each step, float32.
        report: called with (steps done, steps) before each; may raise to stop.
    """
    latents = noise(0).unsqueeze(0).to(denoiser.weights_device)
    for step, timestep in enumerate(solver.timesteps):
        report(step, len(solver.timesteps))
        eps = guidance(denoiser(latents, timestep, condition))
        added = noise(step + 1).unsqueeze(0).to(latents)
        latents = solver.step(eps, step, latents, added)
    return latents


def grey(height: int, width: int) -> Tensor:
    """Return the picture of the unconditional row: [1, 3, H, W] of zeros, mid grey in -1..1."""
    return torch.zeros(1, 3, height, width)
