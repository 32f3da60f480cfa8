"""The noise levels of the video enhancer, and the steps of its solver.

MS-Vid2Vid-XL: 1000 levels, a cosine in log SNR that is shifted for large pictures. A film is noised
to level 599 and denoised from there (SDEdit) by DPM-Solver++ 2M SDE.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEVELS = 1000
START_LEVEL = 599
STEPS = 30
# Largest and smallest log SNR, halved, before the shift.
_LOG_SNR = 7.5
# The shift goes from that of twice the size at level 0 to that of four times at level 999.
_SHIFTS = (2.0, 4.0)


def noise_levels() -> Tensor:
    """Return the standard deviations of the noise of the variance-preserving levels: [1000]."""
    t = torch.linspace(1, 0, LEVELS, dtype=torch.float64)
    first, last = math.atan(math.exp(_LOG_SNR)), math.atan(math.exp(-_LOG_SNR))
    cosine = -2 * torch.log(torch.tan(first + t * (last - first)))
    near, far = (cosine - 2 * math.log(shift) for shift in _SHIFTS)
    return torch.sigmoid(-(t * near + (1 - t) * far)).sqrt()


@dataclass(frozen=True)
class Ladder:
    """The steps from `START_LEVEL` to 0.

    Attributes:
        sigmas: variance-exploding noise levels, one more than steps; the last is 0.
        levels: the levels before they are rounded.
    """

    sigmas: tuple[float, ...]
    levels: tuple[float, ...]

    @classmethod
    def of(cls, steps: int = STEPS) -> Ladder:
        """Take `steps` levels, 1..500: equally spaced, and between two in the logarithm of sigma.

        The published code takes one more and drops it.
        """
        levels = noise_levels()
        spread = (levels / (1 - levels**2).sqrt()).log()
        fractions = [START_LEVEL - step * (START_LEVEL + 1) / (steps + 1) for step in range(steps)]
        sigmas = []
        for time in fractions:
            low = int(time)
            part = time - low
            between = spread[low] * (1 - part) + spread[min(low + 1, LEVELS - 1)] * part
            sigmas.append(math.exp(float(between)))
        return cls((*sigmas, 0.0), tuple(fractions))

    @property
    def times(self) -> tuple[int, ...]:
        """What the UNet is told: the nearest whole levels."""
        return tuple(round(level) for level in self.levels)

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return len(self.levels)

    def noised(self, latents: Tensor, noise: Tensor) -> Tensor:
        """Noise clean latents to the first level, as the solver begins with them.

        The published code scales by sigma where sqrt(1 + sigma^2) would be right, so that the
        UNet first sees 0.972 of its usual input; so does this.
        """
        level = noise_levels()[START_LEVEL].item()
        noised = math.sqrt(1 - level**2) * latents + level * noise
        return noised * self.sigmas[0]

    def scaled(self, latents: Tensor, step: int) -> Tensor:
        """Return the UNet's input for latents of the solver, of unit variance."""
        return latents / math.sqrt(self.sigmas[step] ** 2 + 1)

    def x0(self, scaled: Tensor, v: Tensor, step: int) -> Tensor:
        """Return what the UNet's output v says of the clean latents."""
        sigma = self.sigmas[step]
        length = math.sqrt(sigma**2 + 1)
        return scaled / length - v * (sigma / length)

    def step(
        self, step: int, latents: Tensor, x0: Tensor, x0_before: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Do one step of DPM-Solver++ 2M SDE (midpoint, eta 1); every element by itself.

        Args:
            step: its index.
            latents: before it.
            x0: the clean latents as predicted in this step.
            x0_before: as predicted in the step before; None in the first.
            noise: of unit variance; None in the last step.
        """
        now, then = self.sigmas[step], self.sigmas[step + 1]
        if not then:
            return x0
        length = math.log(now / then)
        # With eta 1 the exponentials of drift and noise are both those of 2 * length.
        gain = -math.expm1(-2 * length)
        result = then / now * math.exp(-length) * latents + gain * x0
        if x0_before is not None:
            before = math.log(self.sigmas[step - 1] / now)
            result = result + 0.5 * gain * (length / before) * (x0 - x0_before)
        assert noise is not None
        return result + noise * (then * math.sqrt(gain))
