"""Long Video From Text: a video of any length from a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from comfy_api.latest import io
from torch import Tensor

from ..live2diff_core.host.identity import file_identity, graph_identity
from ..live2diff_core.run.file import VideoRun
from ..live2diff_core.streamingt2v.given_frames import (
    RATE,
    LongSize,
    MakeImage,
    check_given,
    every_frame,
    open_long_video,
)
from ..live2diff_core.video.encoder import Encoding
from .given_pictures import check_pictures, content_of, makers, opened_video
from .kept_results import RESULTS
from .long_video_inputs import (
    CHECKPOINT_EVERY,
    SAVE_MINUTES,
    make_spec,
    model_inputs,
    sampling_inputs,
)
from .types import CATEGORY
from .video import output_inputs, run_video

NOT_IN_RESULT = ("first_frames", "first_video", "save_minutes")


class Live2DiffLongVideo(io.ComfyNode):
    """Makes a video chunk by chunk."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLongVideo",
            display_name="Long Video From Text",
            category=CATEGORY,
            description="Makes a video of any length from a prompt with StreamingT2V, 8 frames per "
            "second, chunk by chunk in constant memory; goes on after an interrupt or a crash "
            "when it is queued again with the same inputs. First frames, from any model, are "
            "continued.",
            search_aliases=["text to video", "t2v", "streamingt2v", "image to video"],
            inputs=[
                *model_inputs(),
                *_length_inputs(),
                *sampling_inputs(),
                *output_inputs(CHECKPOINT_EVERY, SAVE_MINUTES),
                *_first_inputs(),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="For Save Video.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(
        cls,
        frames: int,
        seconds: float,
        codec: str,
        crf: int,
        checkpoint_every: int,
        save_minutes: float = SAVE_MINUTES,
        first_frames: Tensor | None = None,
        first_video: Any = None,
        **settings: Any,
    ) -> io.NodeOutput:
        """Make the video.

        Raises:
            ValueError: a setting is out of range or of another model, or there are 2 to 15 first
                frames.
        """
        count = round(seconds * RATE) if seconds > 0 else frames
        if count < 1:
            raise ValueError(f"The video would have {count} frames; set frames to 1 or more.")
        spec = make_spec(**settings)
        graph = graph_identity(cls.hidden.prompt, cls.hidden.unique_id, NOT_IN_RESULT)
        with ExitStack() as stack:
            given, known, name = _given(first_frames, first_video, stack)
            reader = open_long_video(given, (spec.width, spec.height), count, count=known)
            run = VideoRun(
                spec,
                reader,
                source=None,
                trim=(0.0, 0.0),
                size=LongSize(spec.width, spec.height),
                encoding=Encoding(codec, crf),
                checkpoint_every=checkpoint_every,
                made_from=f"{graph}, {count} frames, first frames: {name}",
                save_seconds=save_minutes * 60,
            )
            RESULTS.sweep()
            if known > count:
                run.notices.warn(
                    f"{known} first frames were given, which all stay, and {count} frames asked "
                    "for: nothing is made."
                )
            return io.NodeOutput(run_video(run, cls.hidden.unique_id, spec.report))


def _length_inputs() -> list:
    return [
        io.Int.Input(
            "frames",
            default=80,
            min=1,
            max=10_000_000,
            tooltip="Length of the whole video in frames, 8 per second. Any number.",
        ),
        io.Float.Input(
            "seconds",
            default=0.0,
            min=0.0,
            max=1_000_000.0,
            step=0.5,
            tooltip="Length in seconds, in place of frames; 0 leaves it to frames.",
        ),
    ]


def _first_inputs() -> list:
    return [
        io.Image.Input(
            "first_frames",
            optional=True,
            tooltip="What the video begins with, from any model: 16 frames or more, which all stay "
            "in it, or one picture, which is repeated. Without them the model makes the first "
            "chunk itself.",
        ),
        io.Video.Input(
            "first_video",
            optional=True,
            tooltip="The same as a VIDEO; its frames are taken one by one, whatever its rate. To "
            "go on from an existing video at its own pace, use Extend Video.",
        ),
    ]


def _given(
    images: Tensor | None, video: Any, stack: ExitStack
) -> tuple[Iterator[MakeImage], int, str]:
    """Return the first frames, their number or an estimate, and a name of their content."""
    if images is not None and video is not None:
        raise ValueError("Connect first_frames or first_video, not both.")
    if images is not None:
        check_pictures(images, "first_frames")
        check_given(len(images))
        return makers(images), len(images), content_of(images)
    if video is None:
        return iter(()), 0, "none"
    opened = opened_video(video, stack)
    name = f"{file_identity(opened.source)} {list(opened.trim)}"
    return every_frame(opened.reader), opened.reader.info.frame_count or 0, name
