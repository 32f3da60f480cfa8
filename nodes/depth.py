"""Depth nodes: load MiDaS, and estimate the depth of a clip."""

from __future__ import annotations

import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..live2diff_core.depth import ranges as depth_range
from ..live2diff_core.depth.file import PUBLISHED_FILES
from ..live2diff_core.depth.model import DepthModel, resize_depth
from .model_folders import DEPTH_FOLDER
from .types import CATEGORY, DepthModelType

# A frame's sides must be multiples of this: the VAE encodes 8x8 pixels to one latent pixel.
_MULTIPLE = 8
_NO_FILE = "(no file in models/midas)"
_NORMALISATIONS = {
    "running range": depth_range.RUNNING,
    "per clip": depth_range.PER_CLIP,
    "per frame (paper)": depth_range.PER_FRAME,
}


class Live2DiffLoadDepthModel(io.ComfyNode):
    """Load MiDaS DPT-hybrid from models/midas."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLoadDepthModel",
            display_name="Load Depth Model",
            category=CATEGORY,
            description=(
                "Loads MiDaS DPT-hybrid, the depth model Live2Diff was trained with, from "
                "models/midas. Nothing is downloaded."
            ),
            search_aliases=["midas", "dpt hybrid", "live2diff depth"],
            inputs=[
                io.Combo.Input(
                    "depth_model",
                    options=folder_paths.get_filename_list(DEPTH_FOLDER) or [_NO_FILE],
                    tooltip=(
                        f"The file in models/midas: {' or '.join(PUBLISHED_FILES)} (the same "
                        "model, published twice)."
                    ),
                ),
            ],
            outputs=[
                DepthModelType.Output(
                    display_name="depth_model",
                    tooltip="For Estimate Depth, Stream Video and Stream Step.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, depth_model: str | None = None) -> bool | str:
        """Report a missing file before the run, instead of the host's "value not in list"."""
        try:
            _depth_file(depth_model)
        except FileNotFoundError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, depth_model: str) -> io.NodeOutput:
        """Load the file.

        Raises:
            FileNotFoundError: the file does not exist; the message says which one to put where.
            ValueError: the file is damaged or another model.
            ImportError: controlnet-aux is not installed.
        """
        return io.NodeOutput(DepthModel.from_file(_depth_file(depth_model)))


class Live2DiffEstimateDepth(io.ComfyNode):
    """Estimate the depth of frames, as pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffEstimateDepth",
            display_name="Estimate Depth",
            category=CATEGORY,
            description=(
                "Estimates the depth of every frame: near is bright, far is dark. Pass the result "
                "through VAE Encode to the Stream Sampler's depth input."
            ),
            search_aliases=["midas", "depth map", "live2diff depth"],
            inputs=[
                DepthModelType.Input(
                    "depth_model", tooltip="MiDaS DPT-hybrid, from Load Depth Model."
                ),
                io.Image.Input(
                    "images",
                    tooltip="The frames of the video. Width and height must be multiples of 8.",
                ),
                io.Combo.Input(
                    "normalisation",
                    options=list(_NORMALISATIONS),
                    default="running range",
                    tooltip=(
                        "Which depths become black and white. Running range: follows the video, "
                        "without looking ahead; steady, the best choice for streams. Per clip: "
                        "one range for all frames; steadiest, for clips without cuts. Per frame: "
                        "each frame's own range, as the paper's code; can flicker."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="depth",
                    tooltip="One grey picture per frame, of the frame's size; near is bright.",
                ),
            ],
        )

    @classmethod
    def execute(cls, depth_model: DepthModel, images: Tensor, normalisation: str) -> io.NodeOutput:
        """Estimate depth, [F, H, W, 3] in 0..1 to [F, H, W, 3] in 0..1; show progress per batch.

        The depth is normalised at the network's size and resized afterwards, as in the paper's
        code, so that the range does not depend on the size of the video.

        Raises:
            ValueError: no frames, sides that are no multiple of 8, or NaN or infinite pixels.
        """
        _check_frames(images)
        frames, height, width = images.shape[:3]
        bar = comfy.utils.ProgressBar(frames)
        raw = depth_model.predict(images[..., :3], progress=bar.update_absolute)
        depth = depth_range.normalise(raw, _NORMALISATIONS[normalisation])
        depth = resize_depth(depth, height, width)
        return io.NodeOutput(depth[..., None].repeat(1, 1, 1, 3))


def _depth_file(name: str | None) -> str:
    """Return the full path of a file in models/midas."""
    path = folder_paths.get_full_path(DEPTH_FOLDER, name) if name else None
    if path is not None:
        return path
    missing = "no depth model is chosen" if name in (None, "", _NO_FILE) else f"{name} is not there"
    folder = folder_paths.get_folder_paths(DEPTH_FOLDER)[0]
    raise FileNotFoundError(
        f"Load Depth Model: {missing}. Put MiDaS DPT-hybrid ({' or '.join(PUBLISHED_FILES)}, about "
        f"490 MB) into {folder}, reload the page and choose it. The node's help page says where to "
        "get it."
    )


def _check_frames(images: Tensor) -> None:
    """Refuse frames that would fail or give wrong results later in the graph."""
    if images.ndim != 4 or images.shape[-1] not in (3, 4):
        raise ValueError(
            "Estimate Depth: expected an IMAGE batch, [frames, height, width, 3], got "
            f"{list(images.shape)}."
        )
    frames, height, width = images.shape[:3]
    if frames == 0:
        raise ValueError(
            "Estimate Depth: there are no frames. Check the video and the frame range before it."
        )
    if width % _MULTIPLE or height % _MULTIPLE:
        raise ValueError(
            f"Estimate Depth: the frames are {width}x{height} pixels (width x height); both must "
            f"be multiples of {_MULTIPLE}. Resize them to {_lower(width)}x{_lower(height)} first, "
            "with the node Upscale Image or Resize Image/Mask, and use the same frames for VAE "
            "Encode."
        )
    for index, frame in enumerate(images):
        # One frame at a time, because a mask of the whole clip would take a quarter of its bytes.
        if not torch.isfinite(frame).all():
            raise ValueError(
                f"Estimate Depth: frame {index} has NaN or infinite pixels. Look at the node that "
                "made the frames; a VAE in float16 can do this (start ComfyUI with --fp32-vae)."
            )


def _lower(side: int) -> int:
    """Round down to a multiple of 8, but not below 8."""
    return max(side - side % _MULTIPLE, _MULTIPLE)
