"""Measure Video: numbers, a plot and an X-T slice of a video and its translation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..live2diff_core.metrics.frames import MeasureError, Picture
from ..live2diff_core.metrics.host_models import HostRAFT
from ..live2diff_core.metrics.instruments import (
    FLOW_CHOICES,
    choose_instruments,
    clip_embedder,
    depth_estimator,
)
from ..live2diff_core.metrics.measurement import measure
from ..live2diff_core.metrics.plot import plot
from ..live2diff_core.metrics.report import as_json, as_text
from ..live2diff_core.video.frame_size import plan_frame_size
from ..live2diff_core.video.reader import open_video
from .node_text import show_text
from .picture_video import stream_source
from .types import CATEGORY, DepthModelType
from .video import trim_window

FLOW_FOLDER = "optical_flow"


class Live2DiffMeasureVideo(io.ComfyNode):
    """Measures a translated video against its input."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffMeasureVideo",
            display_name="Measure Video",
            category=CATEGORY,
            description="Measures a translated video against its input: structure (depth), "
            "smoothness (CLIP, warp error, MAWE, scene cuts) and flicker, in constant memory.",
            search_aliases=["metrics", "warp error", "clip score", "mawe", "flicker", "x-t slice"],
            inputs=[*_video_inputs(), *_network_inputs(), *_other_inputs()],
            outputs=_outputs(),
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        input_video: Any,
        output_video: Any,
        flow: str,
        row: float,
        match_size: bool,
        depth_model: Any = None,
        clip_vision: Any = None,
    ) -> io.NodeOutput:
        """Measure frame by frame.

        Raises:
            MeasureError: the videos do not belong together; the message says why.
            ImportError, FileNotFoundError: the flow asked for is not there.
        """
        instruments = choose_instruments(
            flow,
            _flow_folders(),
            HostRAFT,
            depth_estimator(depth_model) if depth_model is not None else None,
            clip_embedder(clip_vision) if clip_vision is not None else None,
            row,
        )
        with ExitStack() as opened:
            before, after = (_Frames(each, opened) for each in (input_video, output_video))
            _check_counts(before, after)
            source = before.matched(after) if match_size else iter(before)
            bar = comfy.utils.ProgressBar(after.count or 1)
            found = measure(source, after, instruments, bar.update_absolute)
        text = as_text(found)
        show_text(cls.hidden.unique_id, text)
        return io.NodeOutput(
            text, as_json(found), _image(plot(found.series)), _image(found.xt_slice)
        )


def _video_inputs() -> list:
    return [
        io.MultiType.Input(
            "input_video",
            [io.Video, io.Image],
            tooltip="The video before the translation: a VIDEO of any length, or IMAGE frames.",
        ),
        io.MultiType.Input(
            "output_video",
            [io.Video, io.Image],
            tooltip="The translated video, frame for frame: a VIDEO or IMAGE frames.",
        ),
    ]


def _network_inputs() -> list:
    return [
        DepthModelType.Input(
            "depth_model",
            optional=True,
            tooltip="From 'Load Depth Model'. Without it, depth MSE is not measured.",
        ),
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="From core's 'Load CLIP Vision'. Without it, the CLIP score is not measured.",
        ),
    ]


def _other_inputs() -> list:
    return [
        io.Combo.Input(
            "flow",
            options=list(FLOW_CHOICES),
            default="auto",
            tooltip="Optical flow for warp errors and MAWE. auto: RAFT where its weights are in "
            "models/optical_flow, else OpenCV's DIS, which needs none. Nothing is downloaded.",
        ),
        io.Float.Input(
            "row",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Which line of the frames the X-T slice shows: 0 is the top, 1 the bottom.",
        ),
        io.Boolean.Input(
            "match_size",
            default=False,
            tooltip="Scale and crop the input to the output's size, as Stream Video does. Without "
            "it, videos of two sizes are an error.",
        ),
    ]


def _outputs() -> list:
    return [
        io.String.Output(display_name="text", tooltip="The numbers as a table, as on the node."),
        io.String.Output(display_name="json", tooltip="The numbers as JSON."),
        io.Image.Output(display_name="plot", tooltip="The numbers by frame."),
        io.Image.Output(
            display_name="xt_slice",
            tooltip="One line of all frames, time downwards: input left, output right.",
        ),
    ]


class _Frames:
    """The frames of a VIDEO, read one by one, or of an IMAGE batch, as 8-bit pictures.

    Attributes:
        count: number of frames, for IMAGE batches; an estimate for a VIDEO, None if unknown.
        counted: whether `count` is exact.
        size: width and height.
    """

    def __init__(self, value: Any, opened: ExitStack) -> None:
        """Open a VIDEO for as long as `opened` is open; IMAGE batches are taken as they are."""
        self.counted = isinstance(value, Tensor)
        if isinstance(value, Tensor):
            if value.ndim != 4 or value.shape[-1] not in (3, 4):
                raise MeasureError(
                    "Measure Video: expected a VIDEO or an IMAGE batch, [frames, height, width, "
                    f"3], got {list(value.shape)}."
                )
            self.count: int | None = len(value)
            self.size = value.shape[2], value.shape[1]
            self._pictures = map(_picture, range(len(value)), value)
            return
        source, picture_rate = stream_source(value)
        reader = opened.enter_context(
            open_video(source, *trim_window(value), frame_rate=picture_rate)
        )
        self.count, self.size = reader.info.frame_count, (reader.info.width, reader.info.height)
        self._pictures = (frame.image for frame in reader)

    def __iter__(self) -> Iterator[Picture]:
        """Yield uint8 [H, W, 3], once; stops if the user interrupts."""
        for picture in self._pictures:
            comfy.model_management.throw_exception_if_processing_interrupted()
            yield picture

    def matched(self, other: _Frames) -> Iterator[Picture]:
        """Yield the frames, scaled and cropped to the size of `other` as by Stream Video."""
        return map(plan_frame_size(*self.size, "fill", *other.size).apply, self)


def _picture(index: int, image: Tensor) -> Picture:
    """Round a frame of an IMAGE batch, [H, W, C] in 0..1, to 8 bits, as files hold it."""
    image = image[..., :3].float()
    if not torch.isfinite(image).all():
        raise MeasureError(
            f"Measure Video: frame {index} has NaN or infinite pixels. Look at the node that made "
            "the frames; a VAE in float16 can do this (start ComfyUI with --fp32-vae)."
        )
    return (image.clamp(0, 1) * 255).round().byte().cpu().numpy()


def _check_counts(before: _Frames, after: _Frames) -> None:
    """Refuse IMAGE batches of two lengths before anything is computed."""
    if before.counted and after.counted and before.count != after.count:
        raise MeasureError(
            f"The input has {before.count} frames, the output {after.count}. Only videos with the "
            "same frames can be compared."
        )


def _flow_folders() -> list[Path]:
    # Hosts before 0.24 do not know the folder.
    if FLOW_FOLDER in folder_paths.folder_names_and_paths:
        return [Path(folder) for folder in folder_paths.get_folder_paths(FLOW_FOLDER)]
    return [Path(folder_paths.models_dir, FLOW_FOLDER)]


def _image(picture: np.ndarray) -> Tensor:
    """Make an IMAGE [1, H, W, 3] of uint8 [H, W, 3]."""
    return torch.from_numpy(np.ascontiguousarray(picture))[None].float() / 255
