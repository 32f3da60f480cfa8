"""The settings of a long video, checked before any model is loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..host.vae import check_vae
from ..run.picture_stream import StepReport
from .host_parts import LoadedT2V
from .limits import LARGEST, MOST_STEPS, SIDE_STEP, SMALLEST
from .sampling import T2VGuidance
from .texts import check_text


class LongVideoError(ValueError):
    """Settings that a long video cannot have; the message says which it can."""


@dataclass(frozen=True)
class LongVideoSettings:
    """What a long video is made of.

    Attributes:
        model: the loaded StreamingT2V.
        vae: the host's VAE.
        positive, negative: the host's conditionings; they may be schedules.
        width, height: of the video, multiples of 64.
        steps: denoising steps of a chunk.
        guidance: weights of text and anchor.
        eta: noise added in each step, 0..1; 1 is that of the published code.
        seed: of all noise.
        anchor_of_scene: take the look of the first frame of the last given scene, rather than that
            of the first frame.
        report: told of each step.

    Raises:
        LongVideoError, TextError: a setting is out of range, or of another model.
    """

    model: LoadedT2V
    vae: Any
    positive: Any
    negative: Any
    width: int = 256
    height: int = 256
    steps: int = 50
    guidance: T2VGuidance = field(default_factory=T2VGuidance)
    eta: float = 1.0
    seed: int = 0
    anchor_of_scene: bool = False
    report: StepReport = field(default_factory=StepReport, compare=False)

    def __post_init__(self) -> None:
        """Check the settings before any model is loaded."""
        check_vae(self.vae)
        for what, conds in self.prompts.items():
            width = self.model.denoiser.sizes.context
            check_text(conds, self.text_tokens, width, f"{what} prompt")
        for side in (self.width, self.height):
            if side % SIDE_STEP or not SMALLEST <= side <= LARGEST:
                raise LongVideoError(
                    f"A long video cannot be {self.width}x{self.height}: its sides must be "
                    f"multiples of {SIDE_STEP} from {SMALLEST} to {LARGEST}. The model was trained "
                    "at 256x256."
                )
        if not 1 <= self.steps <= MOST_STEPS or not 0 <= self.eta <= 1:
            raise LongVideoError(
                f"{self.steps} steps with eta {self.eta}: steps must be from 1 to {MOST_STEPS}, "
                "and eta from 0 to 1."
            )

    @property
    def prompts(self) -> dict[str, Any]:
        """The conditionings by kind."""
        return {"positive": self.positive, "negative": self.negative}

    @property
    def text_tokens(self) -> int:
        """Tokens of a text that the model reads."""
        return self.model.denoiser.text_tokens

    @property
    def height_and_width(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.height, self.width
