"""Enhance Video: refines a video at up to 1280x720, of any length."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..live2diff_core.host.identity import graph_identity
from ..live2diff_core.run.file import VideoRun
from ..live2diff_core.run.picture_stream import StepReport
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
from ..live2diff_core.video.reader import VideoReader
from .given_pictures import OpenedVideo, check_pictures, content_of, makers, opened_video
from .kept_results import RESULTS
from .long_video_inputs import guidance_input, seed_input, vae_input
from .types import CATEGORY, EnhancerType
from .video import SAVE_MINUTES, output_inputs, run_video

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
            inputs=[
                *_model_inputs(),
                *_canvas_inputs(),
                *_solver_inputs(),
                *_blending_inputs(),
                *output_inputs(CHECKPOINT_EVERY),
            ],
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
            opened, name = _opened(video, images, stack)
            info = opened.reader.info
            run = VideoRun(
                spec,
                *opened,
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


def _opened(video: Any, images: Tensor | None, stack: ExitStack) -> tuple[OpenedVideo, str]:
    """Return the opened pictures and, where they are no file, a name of them."""
    if (video is None) == (images is None):
        raise ValueError("Connect video or images, and not both.")
    if images is None:
        return opened_video(video, stack), ""
    check_pictures(images, "images")
    return OpenedVideo(_of_images(images), None), f" {content_of(images)}"


def _of_images(images: Tensor) -> VideoReader:
    count, height, width = images.shape[:3]
    info = VideoInfo(width, height, RATE, Fraction(1, 12_800), count, "images")
    frames = (
        PendingFrame(Fraction(number) / RATE, 1 / RATE, make)
        for number, make in enumerate(makers(images))
    )
    return VideoReader(info, frames, WarningLog("the images"))


def _model_inputs() -> list:
    return [
        EnhancerType.Input("enhancer", tooltip="From Load Video Enhancer."),
        vae_input(),
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


def _canvas_inputs() -> list:
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
    ]


def _solver_inputs() -> list:
    return [
        seed_input("The noise and the places of the blending follow from it."),
        io.Int.Input("steps", default=30, min=1, max=MOST_ENHANCER_STEPS, tooltip="Of the solver."),
        guidance_input("guidance", "Weight of the prompt."),
    ]


def _blending_inputs() -> list:
    return [
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
