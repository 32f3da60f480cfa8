"""One prompt of a live stream: what `Stream Step` does, in order."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from ..live2diff_core.depth.model import DepthModel, resize_depth
from ..live2diff_core.host.conditioning_fingerprint import conditioning_layout, fingerprint_prompt
from ..live2diff_core.host.control_hints import ControlHintError, HintFrames
from ..live2diff_core.host.frame_conditions import FrameConditionError
from ..live2diff_core.host.model import HostModel
from ..live2diff_core.host.model_fingerprint import fingerprint_model, fingerprint_module
from ..live2diff_core.host.vae import FrameVAE
from ..live2diff_core.run.live import (
    LiveOutput,
    LiveStream,
    SavedStream,
    normalised,
    settings_differences,
)
from ..live2diff_core.run.registry import STREAMS
from ..live2diff_core.run.start import start_session
from ..live2diff_core.run.translator import FrameTranslator
from ..live2diff_core.stream.guidance import Guidance
from ..live2diff_core.stream.schedule import ConsistencySchedule
from ..live2diff_core.stream.similar_frames import SkipRule


@dataclass(frozen=True)
class StepRequest:
    """The inputs of one prompt, checked."""

    name: str
    model: Any
    vae: Any
    positive: Any
    negative: Any
    images: torch.Tensor
    schedule: ConsistencySchedule
    seed: int
    guidance: Guidance
    shared_noise: bool
    frame_filter: SkipRule | None
    depth_model: DepthModel | None
    hold: bool
    keep_cache: bool
    finish: bool
    max_idle_seconds: float
    max_bytes: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.images.shape[1], self.images.shape[2]

    def settings(self) -> dict[str, Any]:
        """What a stream cannot change without starting over."""
        height, width = self.size
        depth = "no"
        if self.depth_model is not None:
            depth = f"yes {fingerprint_module(self.depth_model.patcher.model)}"
        layout = {"areas of the prompt": conditioning_layout(self.positive)}
        if self.guidance.uses_negative:
            layout["areas of the negative prompt"] = conditioning_layout(self.negative)
        return normalised(
            {
                "size": f"{width}x{height}",
                **fingerprint_model(self.model),
                "timesteps": " ".join(f"{step:g}" for step in self.schedule.timesteps),
                "noise levels": " ".join(f"{sigma:.4g}" for sigma in self.schedule.sigmas.tolist()),
                "seed": self.seed,
                "guidance": str(self.guidance),
                "noise": "same for all frames" if self.shared_noise else "fresh per frame",
                "few-step model": "lcm" if self.schedule.c_skip.any() else "x0",
                "depth": depth,
                **layout,
            }
        )

    def prompt(self) -> str:
        """Name of the prompts."""
        negative = self.negative if self.guidance.uses_negative else []
        return fingerprint_prompt([*self.positive, *negative])


def run_step(request: StepRequest) -> LiveOutput:
    """Push the prompt's frames into their stream; see `LiveStream.step`.

    Raises:
        ValueError: inputs that no stream, or not this one, can take.
    """
    STREAMS.drop_idle()
    vae = FrameVAE(request.vae)
    prompt = request.prompt()
    live, state = _take_up(request, prompt)
    host = _host_model(request, vae, live)
    STREAMS.make_room(request.name, max(live.nbytes, host.memory_bytes), request.max_bytes)
    with STREAMS.working_on(request.name), host:
        try:
            live.translator.attach(
                host, vae, request.depth_model, resize_depth, request.frame_filter
            )
            if state is not None:
                live.load_state_dict(state)
            live.follow_prompt(prompt)
            base = request.model.model
            live.move(f"{host.device} {base.manual_cast_dtype or base.get_dtype()}")
            # Not before: a saved stream stays until its state has been taken up.
            STREAMS.put(live, request.max_idle_seconds)
            output = _step(live, host, request)
        finally:
            # What stays between prompts must not keep the host's models in memory.
            live.translator.detach()
    if request.finish:
        STREAMS.remove(request.name)
    return output


def _step(live: LiveStream, host: HostModel, request: StepRequest) -> LiveOutput:
    """Push the prompt's frames; each keeps its control images until it is finished."""
    session = live.translator.session
    host.place_hints(session.frames_in, live.hints)
    try:
        return live.push(request.images, request.hold, request.finish)
    finally:
        live.hints = host.hints_of(session.frames_inside)


def _take_up(
    request: StepRequest, prompt: str
) -> tuple[LiveStream, dict[str, torch.Tensor] | None]:
    """Find the stream to go on with, or start one; a saved stream's state is still to be loaded."""
    settings = request.settings()
    found = STREAMS.get(request.name)
    if isinstance(found, SavedStream):
        found.check(settings)
        kept = request.keep_cache or found.prompt == prompt
        note = f"goes on from {found.file_name}" if kept else "the prompt changed"
        live = _new_stream(request, settings, found.prompt if kept else prompt, note)
        live.source = found.source
        return live, found.state if kept else None
    if found is None:
        return _new_stream(request, settings, prompt, ""), None
    assert isinstance(found, LiveStream)
    reason = _reason_to_start_over(found, settings, prompt, request)
    if not reason:
        return found, None
    logging.info("Live2Diff: the stream '%s' starts over: %s.", request.name, reason)
    # Its caches go before those of the new stream come.
    STREAMS.remove(request.name)
    live = _new_stream(request, settings, prompt, f"started over: {reason}")
    live.picture, live.source = found.picture, found.source
    return live, None


def _reason_to_start_over(
    live: LiveStream, settings: dict[str, Any], prompt: str, request: StepRequest
) -> str:
    if differing := settings_differences(live.settings, settings):
        return differing
    if live.translator.session.ended and not request.finish:
        return "it had been finished"
    if live.prompt != prompt and not request.keep_cache:
        return "the prompt changed"
    return ""


def _new_stream(
    request: StepRequest, settings: dict[str, Any], prompt: str, note: str
) -> LiveStream:
    session = start_session(
        request.model, request.schedule, request.seed, request.guidance, request.shared_noise
    )
    translator = FrameTranslator(session, request.seed)
    return LiveStream(request.name, settings, prompt, translator, note=note)


def _host_model(request: StepRequest, vae: FrameVAE, live: LiveStream) -> HostModel:
    height, width = request.size
    companions, working = [vae.patcher], vae.working_bytes(height, width)
    if request.depth_model is not None:
        companions.append(request.depth_model.patcher)
        working += request.depth_model.working_bytes
    try:
        return HostModel(
            request.model,
            request.positive,
            request.negative,
            request.guidance,
            request.schedule,
            (height // 8, width // 8),
            frames=1,
            companions=companions,
            companion_bytes=working,
            held_bytes=live.translator.session.nbytes,
            hints=HintFrames(count=len(request.images), follow=True),
        )
    except (ControlHintError, FrameConditionError) as error:
        raise ValueError(
            "Stream Step: a ControlNet takes one image for each of this run's frames, or one for "
            "all of them; a mask and a prompt hold for the whole stream, so each must be a single "
            f"one. {error}"
        ) from error
