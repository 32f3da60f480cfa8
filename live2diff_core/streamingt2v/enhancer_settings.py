"""The settings of an enhanced video, checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..host.vae import SCALE, check_vae
from ..run.picture_stream import StepReport
from ..stream.prompt_track import KEY
from .blending import Blended, Chunks
from .enhancer import GUIDANCE
from .enhancer_schedule import STEPS, Ladder
from .host_parts import LoadedEnhancer
from .limits import (
    HEIGHT,
    MOST_ENHANCER_STEPS,
    SIDE_STEP,
    SMALLEST_HEIGHT,
    SMALLEST_WIDTH,
    WIDTH,
)
from .texts import TextError, check_text

TEXT_TOKENS = 77


class EnhanceError(ValueError):
    """Settings that an enhanced video cannot have; the message says which it can."""


@dataclass(frozen=True)
class EnhanceSettings:
    """What an enhanced video is made of.

    Attributes:
        model: the loaded enhancer.
        vae: the host's VAE.
        positive, negative: the host's conditionings.
        width, height: of the black picture in which frames are enhanced.
        steps: of the solver.
        guidance: weight of the prompt.
        chunks: how the film is cut.
        blended: what is blended where chunks overlap.
        seed: of noise and cuts.
        report: told of each UNet call.

    Raises:
        EnhanceError, TextError, ChunkError: a setting is out of range, or of another model.
    """

    model: LoadedEnhancer
    vae: Any
    positive: Any
    negative: Any
    width: int = WIDTH
    height: int = HEIGHT
    steps: int = STEPS
    guidance: float = GUIDANCE
    chunks: Chunks = field(default_factory=Chunks)
    blended: Blended = "x0"
    seed: int = 0
    report: StepReport = field(default_factory=StepReport, compare=False)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_vae(self.vae)
        for what, conds in self.prompts.items():
            check_text(conds, TEXT_TOKENS, self.model.network.sizes.context, f"{what} prompt")
            if KEY in conds[0][1]:
                raise TextError(
                    f"The {what} prompt is a schedule, and a video is enhanced with one text: its "
                    "chunks are blended. Connect a prompt without 'Prompt Schedule'."
                )
        wide = not self.width % SIDE_STEP and SMALLEST_WIDTH <= self.width <= WIDTH
        high = not (self.height - SMALLEST_HEIGHT) % SIDE_STEP
        if not (wide and high and SMALLEST_HEIGHT <= self.height <= HEIGHT):
            raise EnhanceError(
                f"A video cannot be enhanced at {self.width}x{self.height}: the width must be a "
                f"multiple of {SIDE_STEP} up to {WIDTH}, the height one of "
                f"{SMALLEST_HEIGHT}, {SMALLEST_HEIGHT + SIDE_STEP}, ..., {HEIGHT - SIDE_STEP}, "
                f"{HEIGHT}. The model was trained at {WIDTH}x{HEIGHT}."
            )
        if not 1 <= self.steps <= MOST_ENHANCER_STEPS:
            raise EnhanceError(
                f"There are {self.steps} steps; 1 to {MOST_ENHANCER_STEPS} are possible."
            )

    @property
    def prompts(self) -> dict[str, Any]:
        """The conditionings by kind."""
        return {"positive": self.positive, "negative": self.negative}

    @property
    def ladder(self) -> Ladder:
        """The steps."""
        return Ladder.of(self.steps)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Shape of a frame's latent."""
        channels = self.model.network.sizes.latent
        return channels, self.height // SCALE, self.width // SCALE
