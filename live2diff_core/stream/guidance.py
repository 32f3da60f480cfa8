"""Guidance on a stream: away from the negative prompt, with or without extra passes of the UNet.

StreamDiffusion (section 3.2, residual classifier-free guidance) replaces the negative pass by a
*virtual residual noise*: what a frame's latent holds beside its own clean picture. It is known
when the frame enters, and every step says how it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from .schedule import ConsistencySchedule


class GuidanceMode(str, Enum):
    """Where the noise prediction for the negative prompt comes from."""

    NONE = "none"
    FULL = "full"
    SELF = "self"
    INITIALIZE = "initialize"


@dataclass(frozen=True)
class Guidance:
    """How strongly, and by which negative, frames are guided.

    Attributes:
        scale: guidance scale (cfg); 1 is no guidance in every mode.
        mode: `full`: a negative pass of every row. `self`: the virtual residual noise.
            `initialize`: a negative pass at a frame's first step, which the virtual residual
            noise goes on from. `none`: no guidance, whatever the scale.
        delta: strength of the virtual residual noise; used by `self` and `initialize`.

    UNet rows per frame at T steps: `none` and `self` T, `initialize` T + 1, `full` 2T.
    """

    scale: float = 1.0
    mode: GuidanceMode = GuidanceMode.FULL
    delta: float = 1.0

    def __post_init__(self) -> None:
        """Take the mode by its name, too."""
        object.__setattr__(self, "mode", GuidanceMode(self.mode))

    @property
    def active(self) -> GuidanceMode:
        """The mode, or `none` where the scale makes it so."""
        return GuidanceMode.NONE if self.scale == 1.0 else self.mode

    def __str__(self) -> str:
        """Name what counts: settings that change nothing are left out."""
        parts = {"mode": self.active.value, "scale": f"{self.scale:g}"}
        if self.active is GuidanceMode.NONE:
            del parts["scale"]
        if self.virtual:
            parts["delta"] = f"{self.delta:g}"
        return " ".join(parts.values())

    @property
    def host_scale(self) -> float:
        """Scale that the host's own guidance runs at; 1 is without a negative pass."""
        return self.scale if self.active is GuidanceMode.FULL else 1.0

    @property
    def virtual(self) -> bool:
        """Whether frames carry a residual noise through their steps."""
        return self.active in (GuidanceMode.SELF, GuidanceMode.INITIALIZE)

    @property
    def uses_negative(self) -> bool:
        """Whether the negative prompt is read at all."""
        return self.active in (GuidanceMode.FULL, GuidanceMode.INITIALIZE)

    def steps(self, denoising_steps: int) -> dict[str, int]:
        """Denoising steps, from the first, at which each kind of conditioning is run."""
        negative = {GuidanceMode.FULL: denoising_steps, GuidanceMode.INITIALIZE: 1}
        return {"positive": denoising_steps, "negative": negative.get(self.active, 0)}

    def rows_per_frame(self, denoising_steps: int) -> int:
        """UNet rows that one frame costs, at one positive and one negative conditioning."""
        return sum(self.steps(denoising_steps).values())


def residual_of(x: Tensor, denoised: Tensor, schedule: ConsistencySchedule, step: int) -> Tensor:
    """Noise that a prediction of x0 implies: eps of x = sqrt_alpha * x0 + sqrt_beta * eps."""
    signal = schedule.sqrt_alpha[step].item() * denoised
    return (x - signal) / schedule.sqrt_beta[step].item()


def guide(
    x: Tensor,
    denoised: Tensor,
    residual: Tensor,
    guidance: Guidance,
    schedule: ConsistencySchedule,
    step: int,
) -> Tensor:
    """Steer a prediction of x0 away from the virtual negative, `delta` times the residual noise.

    Args:
        x: [C, h, w] noisy latent that went into the model at `step`.
        denoised: [C, h, w] x0 predicted for the prompt.
        residual: [C, h, w] the frame's residual noise.
        guidance: scale and delta.
        schedule, step: the noise level.

    Returns:
        [C, h, w] x0 of eps_neg + scale * (eps_pos - eps_neg).
    """
    noise = schedule.sqrt_beta[step].item() * guidance.delta * residual
    negative = (x - noise) / schedule.sqrt_alpha[step].item()
    return negative + guidance.scale * (denoised - negative)


def next_residual(
    x: Tensor,
    denoised: Tensor,
    residual: Tensor,
    noise: Tensor,
    schedule: ConsistencySchedule,
    step: int,
) -> Tensor:
    """Residual noise after the step from `step` to the next.

    With x = sqrt_alpha * z + sqrt_beta * residual, where z is the frame's own clean latent, the
    consistency step is linear in x: what it makes of the residual's part alone is what the next
    level holds beside z, apart from the `noise` that is added there.
    """
    alpha, beta = schedule.sqrt_alpha[step].item(), schedule.sqrt_beta[step].item()
    scaled = beta * residual
    eps = residual_of(x, denoised, schedule, step)
    left = schedule.consistency_x0(scaled, (scaled - beta * eps) / alpha, step)
    ahead = step + 1
    ratio = schedule.sqrt_alpha[ahead].item() / schedule.sqrt_beta[ahead].item()
    return noise + ratio * left
