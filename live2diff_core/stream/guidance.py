"""Guidance of a stream away from the negative prompt, with or without extra passes of the UNet.

Residual classifier-free guidance (StreamDiffusion, section 3.2) replaces the negative pass by a
*virtual residual noise*: the part of a noisy latent that is not the frame's own clean latent. It
starts as the noise added when the frame enters, and is updated at every step without the UNet.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from .schedule import ConsistencySchedule


class GuidanceMode(str, Enum):
    """The source of the noise prediction for the negative prompt."""

    NONE = "none"
    FULL = "full"
    SELF = "self"
    INITIALIZE = "initialize"


@dataclass(frozen=True)
class Guidance:
    """The strength of the guidance, and the negative prediction that it uses.

    Attributes:
        scale: guidance scale (cfg); 1 is no guidance in every mode.
        mode: `full` runs a negative pass of every row; `self` uses the virtual residual noise;
            `initialize` runs a negative pass at a frame's first step, from which the virtual
            residual noise continues; `none` does not guide, whatever the scale.
        delta: strength of the virtual residual noise, in `self` and `initialize`.

    The UNet's rows per frame at T steps: `none` and `self` T, `initialize` T + 1, `full` 2T.
    """

    scale: float = 1.0
    mode: GuidanceMode = GuidanceMode.FULL
    delta: float = 1.0

    def __post_init__(self) -> None:
        """Accept the mode's name, too."""
        object.__setattr__(self, "mode", GuidanceMode(self.mode))

    @property
    def active(self) -> GuidanceMode:
        """The mode; `none` where the scale is 1."""
        return GuidanceMode.NONE if self.scale == 1.0 else self.mode

    def __str__(self) -> str:
        """Name the attributes that have an effect."""
        parts = {"mode": self.active.value, "scale": f"{self.scale:g}"}
        if self.active is GuidanceMode.NONE:
            del parts["scale"]
        if self.virtual:
            parts["delta"] = f"{self.delta:g}"
        return " ".join(parts.values())

    @property
    def host_scale(self) -> float:
        """Scale of the host's own guidance; 1 runs no negative pass."""
        return self.scale if self.active is GuidanceMode.FULL else 1.0

    @property
    def virtual(self) -> bool:
        """Whether frames carry a virtual residual noise through their steps."""
        return self.active in (GuidanceMode.SELF, GuidanceMode.INITIALIZE)

    @property
    def uses_negative(self) -> bool:
        """Whether the negative prompt is used."""
        return self.active in (GuidanceMode.FULL, GuidanceMode.INITIALIZE)

    def steps(self, denoising_steps: int) -> dict[str, int]:
        """Return the number of steps, from the first, at which each kind of conditioning runs."""
        negative = {GuidanceMode.FULL: denoising_steps, GuidanceMode.INITIALIZE: 1}
        return {"positive": denoising_steps, "negative": negative.get(self.active, 0)}


def residual_of(x: Tensor, denoised: Tensor, schedule: ConsistencySchedule, step: int) -> Tensor:
    """Return the eps that a prediction of x0 implies: x = sqrt_alpha * x0 + sqrt_beta * eps."""
    signal = schedule.sqrt_alpha[step] * denoised
    return (x - signal) / schedule.sqrt_beta[step]


def guide(
    x: Tensor,
    denoised: Tensor,
    residual: Tensor,
    guidance: Guidance,
    schedule: ConsistencySchedule,
    step: int,
) -> Tensor:
    """Guide a prediction of x0 away from the virtual one, whose eps is `delta * residual`.

    Args:
        x: [C, h, w] noisy latent that was the model's input at `step`.
        denoised: [C, h, w] x0 predicted for the prompt.
        residual: [C, h, w] the frame's virtual residual noise.
        guidance: scale and delta.
        schedule, step: the noise level.

    Returns:
        [C, h, w] x0 of eps_neg + scale * (eps_pos - eps_neg).
    """
    noise = schedule.sqrt_beta[step] * guidance.delta * residual
    negative = (x - noise) / schedule.sqrt_alpha[step]
    return negative + guidance.scale * (denoised - negative)


def next_residual(
    x: Tensor,
    denoised: Tensor,
    residual: Tensor,
    noise: Tensor,
    schedule: ConsistencySchedule,
    step: int,
) -> Tensor:
    """Return the virtual residual noise at the step after `step`, where `noise` is added.

    With x = sqrt_alpha * z + sqrt_beta * residual, where z is the frame's own clean latent, the
    consistency step is linear in x. Its result for the residual's part alone is therefore the
    residual at the next level, apart from the `noise` that is added there.
    """
    alpha, beta = schedule.sqrt_alpha[step], schedule.sqrt_beta[step]
    scaled = beta * residual
    eps = residual_of(x, denoised, schedule, step)
    left = schedule.consistency_x0(scaled, (scaled - beta * eps) / alpha, step)
    ratio = schedule.sqrt_alpha[step + 1] / schedule.sqrt_beta[step + 1]
    return noise + ratio * left
