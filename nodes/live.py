"""Stream Step: one or a few frames of a live stream per run of the graph."""

from typing import Any

import comfy.model_management
import numpy
import torch
from comfy_api.latest import io

from ..live2diff_core.run.live_opening import LiveOpening
from ..live2diff_core.run.live_run import LiveRun
from ..live2diff_core.run.registry import STREAMS
from ..live2diff_core.run.spec import StreamSpec
from .live_streams import always, stream_name, stream_text
from .node_text import show_text
from .stream_inputs import (
    model_input,
    option_inputs,
    prompt_inputs,
    sampling_inputs,
    sigmas_input,
)
from .types import CATEGORY, DepthModelType

PASS_THROUGH, HOLD_LAST = "pass through", "hold last"
KEEP_CACHE, START_OVER = "keep cache", "start over"
# A frame's sides must be multiples of this: the VAE encodes 8x8 pixels to one latent pixel.
MULTIPLE = 8


def live_frames(image: torch.Tensor) -> torch.Tensor:
    """Check and return the frames of one run: [F, H, W, 3], F at least 1.

    Raises:
        ValueError: no pictures, sides that are no multiple of 8, or NaN or infinite pixels.
    """
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise ValueError(
            f"Stream Step: expected an IMAGE [frames, height, width, 3], got {list(image.shape)}."
        )
    frames, height, width = image.shape[:3]
    if not frames:
        raise ValueError("Stream Step: there is no frame in this run's IMAGE.")
    if width % MULTIPLE or height % MULTIPLE or not width or not height:
        raise ValueError(
            f"Stream Step: the frame is {width}x{height} pixels (width x height); both must be "
            f"multiples of {MULTIPLE}. Resize it first, with the node Upscale Image, to "
            f"{max(width - width % MULTIPLE, MULTIPLE)}x"
            f"{max(height - height % MULTIPLE, MULTIPLE)}, say."
        )
    # By numpy, because torch.isfinite of a frame on the CPU would be an operation of every frame
    # whose result is read. Frames on a GPU (--gpu-only) have to be read back for it.
    if not numpy.isfinite(image.cpu().float().numpy()).all():
        raise ValueError("Stream Step: the frame has NaN or infinite pixels.")
    return image[..., :3]


def _model_inputs() -> list:
    return [
        model_input(),
        io.Vae.Input("vae", tooltip="An SD1.5 VAE; TAESD is the quick one."),
        *prompt_inputs(),
        io.Image.Input(
            "image",
            tooltip="The next frame, or the next few in order. Sides must be multiples of 8.",
        ),
        io.String.Input(
            "stream",
            default="live",
            tooltip="Name of the stream. Runs with the same name go on with it, wherever the node "
            "is; streams of different names know nothing of each other.",
        ),
    ]


def _stream_inputs() -> list:
    return [
        io.Combo.Input(
            "during_warmup",
            options=[PASS_THROUGH, HOLD_LAST],
            tooltip="What comes out until the first frames are finished: the frames that go in, "
            "or the last finished picture (black when there is none).",
        ),
        io.Combo.Input(
            "on_prompt_change",
            options=[KEEP_CACHE, START_OVER],
            tooltip="A new prompt: go on without a break, while the look of the first frames "
            "lives on in the cache; or start over with a new warm-up.",
        ),
        io.Boolean.Input(
            "finish",
            default=False,
            tooltip="End the stream after this frame: the frames still inside come out, and its "
            "memory is given back.",
        ),
        io.Int.Input(
            "max_idle_minutes",
            default=30,
            min=0,
            max=10_080,
            tooltip="This stream is dropped when it has not been used for so long; 0 keeps it.",
        ),
        io.Float.Input(
            "max_total_gb",
            default=8.0,
            min=0.0,
            max=1024.0,
            step=0.1,
            tooltip="When all live streams together hold more, others are dropped, the least "
            "recently used first; 0 is no limit.",
        ),
        DepthModelType.Input(
            "depth_model",
            optional=True,
            tooltip="From 'Load Depth Model': keeps the structure of the scene. Needs a motion "
            "module with a depth encoder.",
        ),
        sigmas_input(),
        *option_inputs(),
    ]


class Live2DiffStreamStep(io.ComfyNode):
    """Pushes frames into a live stream and returns the finished ones."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffStreamStep",
            display_name="Stream Step",
            category=CATEGORY,
            description="Translates a live stream: one frame, or a few, per run of the graph. The "
            "stream lives on between runs under its name, whatever else runs in between.",
            search_aliases=["live", "webcam", "realtime", "stream diffusion"],
            inputs=[*_model_inputs(), *sampling_inputs(fixed_seed=True), *_stream_inputs()],
            outputs=[
                io.Image.Output(
                    display_name="image",
                    tooltip="All frames that this run finished, as a batch; while there are none, "
                    "what 'during_warmup' says.",
                ),
                io.Int.Output(
                    display_name="frame_index",
                    tooltip="Number in the stream, from 0, of the first frame of 'image'; -1 when "
                    "this run finished none.",
                ),
                io.Boolean.Output(
                    display_name="warming_up",
                    tooltip="True until the stream's first frames have come out.",
                ),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Make the node run every time: the same picture again is the next frame."""
        return always()

    @classmethod
    def execute(
        cls,
        image: torch.Tensor,
        stream: str,
        during_warmup: str,
        on_prompt_change: str,
        finish: bool,
        max_idle_minutes: int,
        max_total_gb: float,
        **inputs: Any,
    ) -> io.NodeOutput:
        """Check the inputs, then push the frames."""
        name = stream_name(stream)
        images = live_frames(image)
        height, width = images.shape[1:3]
        opening = LiveOpening(
            "Stream Step",
            name,
            StreamSpec.from_inputs(**inputs),
            size=(height, width),
            frames=len(images),
            keep_cache=on_prompt_change == KEEP_CACHE,
            finish=finish,
            max_idle_seconds=max_idle_minutes * 60.0,
            max_bytes=int(max_total_gb * 1e9),
        )
        output = LiveRun(opening, images, during_warmup == HOLD_LAST).run(STREAMS)
        show_text(cls.hidden.unique_id, output.notices.below(stream_text(name)))
        pictures = output.pictures.to(comfy.model_management.intermediate_device())
        return io.NodeOutput(pictures, output.frame_index, output.warming_up)
