"""The Stream Sampler: LATENT frames in, as many LATENT frames out."""

from typing import Any

import comfy.model_management
import torch
from comfy_api.latest import io

from ..live2diff_core.run.clip import (
    frame_latents,
    matching_depth,
    translate_clip,
    write_frames,
)
from ..live2diff_core.run.notices import Notices
from ..live2diff_core.run.spec import StreamSpec
from ..live2diff_core.stream.byte_size import format_bytes
from .node_text import show_text
from .progress import LatentProgress
from .stream_inputs import (
    model_input,
    option_inputs,
    prompt_inputs,
    sampling_inputs,
    sigmas_input,
)
from .types import CATEGORY


class Live2DiffStreamSampler(io.ComfyNode):
    """Runs a stream over a batch of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffStreamSampler",
            display_name="Stream Sampler",
            category=CATEGORY,
            description="Translates video frames one after another, each seeing the ones before. "
            "Gives exactly one frame per input frame, in order. Without 'Apply Live2Diff' or "
            "'Apply Feature Bank' every frame is translated by itself (StreamDiffusion).",
            inputs=[
                model_input(),
                *prompt_inputs(),
                io.Latent.Input(
                    "frames", tooltip="The video's frames in order, encoded with an SD1.5 VAE."
                ),
                io.Latent.Input(
                    "depth",
                    optional=True,
                    tooltip="Depth images of the same frames, encoded with the same VAE. Keeps "
                    "the structure of the scene. Needs a motion module with a depth encoder.",
                ),
                *sampling_inputs(),
                sigmas_input(),
                *option_inputs(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="frames", tooltip="One latent per input frame, in order."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, frames: dict, depth: dict | None = None, **stream: Any) -> io.NodeOutput:
        """Check the inputs, then stream the frames."""
        latents = frame_latents(frames)
        depth_latents = None if depth is None else matching_depth(depth, latents)
        spec = StreamSpec.from_inputs(**stream, depth_latents=depth is not None)
        count = len(latents)
        opened = spec.open(tuple(latents.shape[2:]), count)
        memory = f"Memory: {format_bytes(opened.model.memory_bytes)}"
        show_text(cls.hidden.unique_id, memory)
        output = torch.empty_like(latents, device=comfy.model_management.intermediate_device())
        progress = LatentProgress(spec.model, count)
        notices = Notices()
        try:
            with opened:
                finished = translate_clip(spec, opened, latents, depth_latents, notices)
                write_frames(finished, output, opened.model.to_latent, progress, notices)
        finally:
            if notices.text:
                show_text(cls.hidden.unique_id, notices.below(memory))
        return io.NodeOutput({**frames, "samples": output})
