"""Extend Video: goes on with an existing video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Any

from comfy_api.latest import io

from ..live2diff_core.host.identity import graph_identity
from ..live2diff_core.run.file import VideoRun
from ..live2diff_core.streamingt2v.given_frames import (
    MADE,
    RATE,
    GivenFramesError,
    LongSize,
    MakeImage,
    at_rate,
    open_long_video,
)
from ..live2diff_core.video.encoder import Encoding
from ..live2diff_core.video.frame import WarningLog
from ..live2diff_core.video.reader import VideoReader
from .given_pictures import opened_video
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

FIRST, SCENE = "first frame", "first frame of the last scene"
NOT_IN_RESULT = ("video", "save_minutes")


class Live2DiffExtendVideo(io.ComfyNode):
    """Continues a video, at the model's size and rate."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffExtendVideo",
            display_name="Extend Video",
            category=CATEGORY,
            description="Continues a video by some seconds with StreamingT2V. The whole result has "
            "this node's size and 8 frames per second; its sound is copied. Can make it anew from "
            "a chunk on, with another prompt. Goes on after an interrupt or a crash.",
            search_aliases=["continue video", "video extension", "streamingt2v"],
            inputs=[
                *model_inputs(),
                io.Video.Input("video", tooltip="The video to go on with: 2 seconds or more."),
                *_extension_inputs(),
                *sampling_inputs(),
                *output_inputs(CHECKPOINT_EVERY, SAVE_MINUTES),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="Both parts, for Save Video.")],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def execute(
        cls,
        video: Any,
        seconds: float,
        anchor: str,
        redo_from_chunk: int,
        codec: str,
        crf: int,
        checkpoint_every: int,
        save_minutes: float = SAVE_MINUTES,
        **settings: Any,
    ) -> io.NodeOutput:
        """Make the video.

        Raises:
            ValueError: a setting is out of range or of another model.
            GivenFramesError: the video is too short.
        """
        spec = make_spec(anchor_of_scene=anchor == SCENE, **settings)
        made_from = graph_identity(cls.hidden.prompt, cls.hidden.unique_id, NOT_IN_RESULT)
        added = round(seconds * RATE)
        # Chunk 0 is the first 16 frames.
        kept = MADE * (redo_from_chunk + 1) if redo_from_chunk else None
        with ExitStack() as stack:
            original, source, trim = opened_video(video, stack)
            run = VideoRun(
                spec,
                _reader(original, (spec.width, spec.height), added, kept),
                source,
                trim,
                size=LongSize(spec.width, spec.height),
                encoding=Encoding(codec, crf),
                checkpoint_every=checkpoint_every,
                made_from=f"{made_from}, {added} frames behind {kept or 'all'}",
                save_seconds=save_minutes * 60,
            )
            RESULTS.sweep()
            run.notices.warn(
                f"the whole result is {spec.width}x{spec.height} at {RATE} frames per second; the "
                f"original is {original.info.width}x{original.info.height} at "
                f"{float(original.info.frame_rate):.4g}."
            )
            return io.NodeOutput(run_video(run, cls.hidden.unique_id, spec.report))


def _reader(
    original: VideoReader, size: tuple[int, int], added: int, kept: int | None
) -> VideoReader:
    """Return the frames of `original` at the model's rate, and requests for `added` ones."""
    info, log = original.info, WarningLog("the video")
    log.warnings = original.warnings
    count = round((info.frame_count or 0) * RATE / info.frame_rate)
    if kept is not None:
        count = min(count, kept)
    frames = at_rate(original) if kept is None else _first(at_rate(original), kept)
    return open_long_video(frames, size, added, beyond=True, count=count, log=log)


def _first(frames: Iterator[MakeImage], kept: int) -> Iterator[MakeImage]:
    """Yield the frames that are kept.

    Raises:
        GivenFramesError: there are fewer, so that none of them is made anew.
    """
    found = 0
    for make in islice(frames, kept):
        yield make
        found += 1
    if found < kept:
        raise GivenFramesError(
            f"The video has {found} frames at {RATE} per second, and redo_from_chunk "
            f"{kept // MADE - 1} keeps the first {kept}: the largest that it can be is "
            f"{max(found // MADE - 1, 0)}; 0 goes on at the video's end."
        )


def _extension_inputs() -> list:
    return [
        io.Float.Input(
            "seconds",
            default=4.0,
            min=0.125,
            max=1_000_000.0,
            step=0.125,
            tooltip="How much is added; a frame is 0.125 seconds.",
        ),
        io.Combo.Input(
            "anchor",
            options=[FIRST, SCENE],
            default=FIRST,
            tooltip="The frame whose look the new frames keep.",
        ),
        io.Int.Input(
            "redo_from_chunk",
            default=0,
            min=0,
            max=10_000_000,
            tooltip="0 goes on at the end. n makes the video anew from its n-th continuation on: "
            "its first 8 + 8 n frames stay, and the seconds are added to them.",
        ),
    ]
