"""The few-step schedule: the noise levels at which a frame is denoised, and the step between them.

Names follow Latent Consistency Models: `x0` is the clean latent, `sqrt_alpha` = sqrt(ᾱ_t) and
`sqrt_beta` = sqrt(1 - ᾱ_t) are the scales of signal and noise in a latent, `c_skip` and `c_out`
are the boundary scalings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy
import torch
from torch import Tensor

MAX_DENOISING_STEPS = 8
TRAIN_TIMESTEPS = 1000
LCM_ORIGIN_STEPS = 50
SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


class StepRule(str, Enum):
    """How a step uses the model's prediction of x0, before noise is added again.

    `lcm` mixes it with the model's input by the boundary scalings (LCM, LCM-LoRA); `x0` uses it
    unchanged (SD-Turbo, Hyper-SD).
    """

    LCM = "lcm"
    X0 = "x0"


def linear_beta_alphas_cumprod(start: float = 0.00085, end: float = 0.012) -> Tensor:
    """Return ᾱ_t of the betas that motion modules are trained with, which are linear.

    In plain SD1.5, the square roots of the betas are linear.

    Returns:
        [1000] float64, falling from about 0.999 to 0.0016.
    """
    betas = torch.linspace(start, end, TRAIN_TIMESTEPS, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0)


def few_step_timesteps(steps: int, denoise: float, rule: StepRule = StepRule.LCM) -> list[int]:
    """Choose `steps` timesteps, and keep the last `denoise` part of them.

    Args:
        steps: inference steps of the whole schedule, 1 to 50.
        denoise: share of the steps that run, above 0 up to 1; T = int(steps * denoise).
        rule: `lcm` chooses from LCM's 50 training timesteps; `x0` spaces timesteps evenly, from
            the last training timestep down ("trailing", as SD-Turbo and Hyper-SD are distilled).

    Returns:
        T descending timesteps: for 4 steps at 0.5 [499, 259] by `lcm`, [499, 249] by `x0`.

    Raises:
        ValueError: a number is out of range, or T would be 0.
    """
    if not 1 <= steps <= LCM_ORIGIN_STEPS:
        raise ValueError(f"steps is {steps}; the schedule has 1 to {LCM_ORIGIN_STEPS} steps.")
    if not math.isfinite(denoise):
        raise ValueError(f"denoise is {denoise}; it must be above 0 and at most 1.")
    # In binary, a product such as 0.29 * 100 is just below its integer.
    kept = int(steps * denoise + 1e-6)
    if denoise > 1:
        raise ValueError(
            f"denoise is {denoise}: that asks for more denoising steps than the {steps} steps "
            "there are. It must be above 0 and at most 1."
        )
    if kept < 1:
        raise ValueError(
            f"{steps} steps at denoise {denoise} leave no denoising step. "
            f"Raise denoise to at least {math.ceil(100 / steps) / 100:.2f}, or use more steps."
        )
    grid = _lcm_grid(steps) if rule is StepRule.LCM else _trailing_grid(steps)
    return grid[steps - kept :]


def _lcm_grid(steps: int) -> list[int]:
    origin = [k * (TRAIN_TIMESTEPS // LCM_ORIGIN_STEPS) - 1 for k in range(LCM_ORIGIN_STEPS, 0, -1)]
    return [origin[i * LCM_ORIGIN_STEPS // steps] for i in range(steps)]


def _trailing_grid(steps: int) -> list[int]:
    return [round(TRAIN_TIMESTEPS * (steps - i) / steps) - 1 for i in range(steps)]


@dataclass(frozen=True)
class ConsistencySchedule:
    """The T noise levels that every frame passes through, from most noise to least.

    Attributes:
        timesteps: T training timesteps, descending.
        sqrt_alpha, sqrt_beta: T scales of signal and noise, whose squares add up to 1.
        c_skip, c_out: T boundary scalings; 0 and 1 with the rule `x0`.

    All are plain floats, rounded to float32, so that a step reads nothing back from a device.
    """

    timesteps: tuple[float, ...]
    sqrt_alpha: tuple[float, ...]
    sqrt_beta: tuple[float, ...]
    c_skip: tuple[float, ...]
    c_out: tuple[float, ...]

    @classmethod
    def few_step(
        cls, alphas_cumprod: Tensor, steps: int, denoise: float, rule: StepRule = StepRule.LCM
    ) -> ConsistencySchedule:
        """Build the schedule of `steps` inference steps at strength `denoise`.

        Args:
            alphas_cumprod: [1000] ᾱ of the model, float64 on the CPU.
            steps, denoise: see `few_step_timesteps`.
            rule: the rule that the model was distilled for.

        Raises:
            ValueError: from `few_step_timesteps`, or T is more than 8.
        """
        timesteps = few_step_timesteps(steps, denoise, rule)
        alphas = alphas_cumprod[timesteps]
        return cls.from_alphas(alphas, timesteps, rule)

    @classmethod
    def from_sigmas(
        cls, sigmas: Tensor, timesteps: Sequence[float], rule: StepRule = StepRule.LCM
    ) -> ConsistencySchedule:
        """Build the schedule from given noise levels.

        Args:
            sigmas: [T] σ = sqrt((1-ᾱ)/ᾱ), strictly descending, above 0.
            timesteps: [T] the model's timesteps for them.
            rule: the rule that the model was distilled for.

        Raises:
            ValueError: there is no level or more than 8, or they are not finite, above 0 and
                descending.
        """
        levels = sigmas.detach().double().cpu()
        if reason := _no_levels(levels):
            raise ValueError(
                f"SIGMAS must be noise levels that are finite, above 0 (but for a 0 at the end) "
                f"and must fall from step to step; {reason}."
            )
        return cls.from_alphas(1.0 / (levels**2 + 1.0), timesteps, rule)

    @classmethod
    def from_alphas(
        cls, alphas: Tensor, timesteps: Sequence[float], rule: StepRule = StepRule.LCM
    ) -> ConsistencySchedule:
        """Build the schedule from ᾱ at each step, [T] float64 on the CPU.

        Raises:
            ValueError: T is not 1 to 8.
        """
        if not 1 <= len(timesteps) <= MAX_DENOISING_STEPS:
            raise ValueError(
                f"the schedule has {len(timesteps)} denoising steps; 1 to {MAX_DENOISING_STEPS} "
                "are supported. Use fewer steps or a lower denoise: consistency models need 2 to 4."
            )
        scaled = torch.tensor(timesteps, dtype=torch.float64) * TIMESTEP_SCALING
        c_skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        c_out = scaled / (scaled**2 + SIGMA_DATA**2).sqrt()
        if rule is StepRule.X0:
            c_skip, c_out = torch.zeros_like(scaled), torch.ones_like(scaled)
        return cls(
            timesteps=tuple(timesteps),
            sqrt_alpha=_floats(alphas.sqrt()),
            sqrt_beta=_floats((1.0 - alphas).sqrt()),
            c_skip=_floats(c_skip),
            c_out=_floats(c_out),
        )

    def __len__(self) -> int:
        """Return T, the number of denoising steps."""
        return len(self.timesteps)

    @property
    def sigmas(self) -> tuple[float, ...]:
        """T noise levels in the variance-exploding scale of ComfyUI's models."""
        noise, signal = numpy.array([self.sqrt_beta, self.sqrt_alpha], dtype=numpy.float32)
        return tuple((noise / signal).tolist())

    def add_noise(self, x0: Tensor, noise: Tensor, step: int) -> Tensor:
        """Add `noise` to a clean latent at the level of `step`; both have the same shape."""
        return self.sqrt_alpha[step] * x0 + self.sqrt_beta[step] * noise

    def consistency_x0(self, x: Tensor, denoised: Tensor, step: int) -> Tensor:
        """Mix the model's prediction of x0 with its input by the boundary scalings.

        Args:
            x: noisy latent that was the model's input at `step`.
            denoised: (x - sqrt_beta * eps) / sqrt_alpha, the model's prediction of x0.
            step: 0 to T-1.
        """
        return self.c_out[step] * denoised + self.c_skip[step] * x


def _no_levels(levels: Tensor) -> str:
    """Say why these are no noise levels, in words; empty if they are."""
    came = ", ".join(f"{level:g}" for level in levels.flatten().tolist())
    if not levels.numel():
        return "there is no noise level"
    if levels.ndim != 1:
        return f"these have the shape {list(levels.shape)}"
    kinds = {
        "NaN": levels.isnan(),
        "infinite": levels.isinf(),
        "negative": levels < 0,
        "0": levels == 0,
        "not below the one before": levels.diff(prepend=levels[:1] + 1) >= 0,
    }
    for kind, found in kinds.items():
        if found.any():
            return f"number {int(found.nonzero()[0]) + 1} of {came} is {kind}"
    return ""


def _floats(values: Tensor) -> tuple[float, ...]:
    return tuple(values.float().tolist())
