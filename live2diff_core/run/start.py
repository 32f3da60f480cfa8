"""Starts a stream on a MODEL, whichever memories it carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..stream.guidance import Guidance, GuidanceMode
from ..stream.memory import start_memories
from ..stream.noise import FrameNoise
from ..stream.prompt_timeline import PromptTimeline
from ..stream.schedule import ConsistencySchedule, StepRule
from ..stream.session import NoModel, StreamSession


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is denoised, beside its noise levels.

    Attributes:
        guidance_mode, delta: see `Guidance`.
        shared_noise: see `FrameNoise`.
        step_rule: see `StepRule`.
    """

    guidance_mode: GuidanceMode = GuidanceMode.FULL
    delta: float = 1.0
    shared_noise: bool = False
    step_rule: StepRule = StepRule.LCM

    def guidance(self, cfg: float) -> Guidance:
        """Guidance at scale `cfg`."""
        return Guidance(cfg, self.guidance_mode, self.delta)


def start_session(
    model: Any,
    schedule: ConsistencySchedule,
    seed: int,
    guidance: Guidance,
    shared_noise: bool = False,
    timelines: Sequence[PromptTimeline] = (),
) -> StreamSession:
    """Open a session with the memories of `model`; attach the opened model before feeding it.

    Args:
        model: ComfyUI's ModelPatcher.
        schedule: the T noise levels.
        seed: of noise and of random decisions.
        guidance: scale and mode.
        shared_noise: one noise for all frames.
        timelines: when prompts change.
    """
    return StreamSession(
        schedule,
        NoModel(),
        FrameNoise(seed, shared_noise),
        start_memories(model, guidance.steps(len(schedule)), seed),
        guidance=guidance,
        timelines=timelines,
    )
