"""Enhance Video: refines a video at up to 1280x720, of any length."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from fractions import Fraction
from io import BytesIO
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..live2diff_core.host.identity import graph_identity
from ..live2diff_core.run.file import VideoRun
from ..live2diff_core.run.picture_stream import StepReport
from ..live2diff_core.run.translator import to_uint8
from ..live2diff_core.streamingt2v.blending import Chunks
from ..live2diff_core.streamingt2v.given_frames import RATE
from ..live2diff_core.streamingt2v.limits import (
    HEIGHT,
    MOST_ENHANCER_STEPS,
    SIDE_STEP,
    SMALLEST_HEIGHT,
    SMALLEST_WIDTH,
    WIDTH,
)
from ..live2diff_core.video.encoder import Encoding
from ..live2diff_core.video.frame import PendingFrame, VideoInfo, WarningLog
from ..live2diff_core.video.frame_size import plan_frame_size
from ..live2diff_core.video.reader import VideoReader, open_video
from .kept_results import RESULTS
from .picture_video import stream_source
from .stream_inputs import MAX_SEED
from .types import CATEGORY, EnhancerType
from .video import SAVE_MINUTES, output_inputs, run_video, trim_window

CHECKPOINT_EVERY = 64
NOT_IN_RESULT = ("video", "images", "save_minutes")
CODE, PAPER = "x0 (published code)", "latents (paper)"
_BLENDED = {CODE: "x0", PAPER: "latents"}


class Live2DiffEnhanceVideo(io.ComfyNode):
    """Refines a video chunk by chunk, with randomized blending."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffEnhanceVideo",
            display_name="Enhance Video",
            category=CATEGORY,
            description="Refines a video of any length at up to 1280x720 with MS-Vid2Vid-XL. "
            "Overlapping chunks are blended at random places (StreamingT2V), so that there are no "
            "seams, along a front whose memory does not depend on the length.",
            search_aliases=["upscale video", "randomized blending", "vid2vid"],
            inputs=[*_model_inputs(), *_setting_inputs(), *output_inputs(CHECKPOINT_EVERY)],
            outputs=[io.Video.Output(display_name="video", tooltip="For Save Video.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(
        cls,
        codec: str,
        crf: int,
        checkpoint_every: int,
        save_minutes: float = SAVE_MINUTES,
        video: Any = None,
        images: Tensor | None = None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Enhance the video.

        Raises:
            ValueError: a setting is out of range or of another model, or there is no video.
        """
        spec = _spec(**settings)
        graph = graph_identity(cls.hidden.prompt, cls.hidden.unique_id, NOT_IN_RESULT)
        with ExitStack() as stack:
            reader, source, trim, name = _opened(video, images, stack)
            info = reader.info
            run = VideoRun(
                spec,
                reader,
                source,
                trim,
                size=plan_frame_size(info.width, info.height, "fit", spec.width, spec.height),
                encoding=Encoding(codec, crf),
                checkpoint_every=checkpoint_every,
                made_from=graph + name,
                save_seconds=save_minutes * 60,
            )
            RESULTS.sweep()
            return io.NodeOutput(run_video(run, cls.hidden.unique_id, spec.report))


def _spec(enhancer: Any, chunk: int, overlap: int, blending: str, **settings: Any) -> Any:
    """Make the `EnhanceSpec` of the node's inputs."""
    # Here, because it imports diffusers, which takes seconds.
    from ..live2diff_core.streamingt2v.enhancer_spec import EnhanceSpec

    return EnhanceSpec(
        enhancer,
        chunks=Chunks(chunk, overlap),
        blended=_BLENDED[blending],
        report=StepReport(),
        **settings,
    )


def _opened(
    video: Any, images: Tensor | None, stack: ExitStack
) -> tuple[VideoReader, str | BytesIO | None, tuple[float, float], str]:
    """Return the reader, the source of sound, the trim window, and a name of pictures."""
    if (video is None) == (images is None):
        raise ValueError("Connect video or images, and not both.")
    if images is not None:
        found = hashlib.sha256(str(tuple(images.shape)).encode())
        for image in images:
            found.update(to_uint8(image).cpu().numpy().tobytes())
        return _of_images(images), None, (0.0, 0.0), f" {found.hexdigest()[:16]}"
    source, picture_rate = stream_source(video)
    trim = trim_window(video)
    reader = stack.enter_context(open_video(source, *trim, frame_rate=picture_rate))
    return reader, source, trim, ""


def _of_images(images: Tensor) -> VideoReader:
    count, height, width = images.shape[:3]
    info = VideoInfo(width, height, RATE, Fraction(1, 12_800), count, "images")
    frames = (
        PendingFrame(
            Fraction(number) / RATE,
            1 / RATE,
            lambda image=image: to_uint8(image[..., :3]).cpu().numpy(),
        )
        for number, image in enumerate(images)
    )
    return VideoReader(info, frames, WarningLog("the images"))


def _model_inputs() -> list:
    return [
        EnhancerType.Input("enhancer", tooltip="From Load Video Enhancer."),
        io.Vae.Input("vae", tooltip="From Load StreamingT2V, or any VAE of SD1.5 or SD2."),
        io.Conditioning.Input(
            "positive",
            tooltip="What the video shows, from a CLIP of Stable Diffusion 2 (Load StreamingT2V "
            "has one). The published code adds a comma and a space to it.",
        ),
        io.Conditioning.Input("negative", tooltip="What it should not show."),
        io.Video.Input("video", optional=True, tooltip="The video; its times and sound stay."),
        io.Image.Input(
            "images", optional=True, tooltip="Pictures in place of a video, 8 per second."
        ),
    ]


def _setting_inputs() -> list:
    return [
        io.Int.Input(
            "width",
            default=WIDTH,
            min=SMALLEST_WIDTH,
            max=WIDTH,
            step=SIDE_STEP,
            tooltip="Of the black picture into whose middle the frames are scaled; its borders are "
            "cut off again. The model was trained at 1280x720.",
        ),
        io.Int.Input(
            "height",
            default=HEIGHT,
            min=SMALLEST_HEIGHT,
            max=HEIGHT,
            step=SIDE_STEP,
            tooltip="720, 656, 592, ... 80.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=True,
            tooltip="The noise and the places of the blending follow from it.",
        ),
        io.Int.Input("steps", default=30, min=1, max=MOST_ENHANCER_STEPS, tooltip="Of the solver."),
        io.Float.Input(
            "guidance", default=7.5, min=0.0, max=30.0, step=0.1, tooltip="Weight of the prompt."
        ),
        io.Int.Input(
            "chunk",
            default=24,
            min=2,
            max=256,
            tooltip="Frames that the model sees at once; more take more memory.",
        ),
        io.Int.Input(
            "overlap",
            default=8,
            min=1,
            max=128,
            tooltip="Frames that a chunk shares with the next one, at most half of it.",
        ),
        io.Combo.Input(
            "blending",
            options=[CODE, PAPER],
            default=CODE,
            tooltip="What is blended where chunks overlap: the predicted pictures, as in the "
            "published code, or the latents of the next step, as in the paper.",
        ),
    ]
