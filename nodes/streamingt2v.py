"""Loaders of StreamingT2V and of the video enhancer, from models/streamingt2v."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from .model_folders import T2V_FOLDER
from .types import CATEGORY, EnhancerType, T2VModelType

_NO_FILE = "(no file in models/streamingt2v)"
_T2V_SOURCE = "streaming_t2v.ckpt from PAIR/StreamingT2V on Hugging Face (13 GB)"
_ENHANCER_SOURCE = (
    "non_ema_0035000.pth of MS-Vid2Vid-XL, from camenduru/Video-to-Video on Hugging Face or "
    "damo/Video-to-Video on ModelScope (3 GB)"
)


class Live2DiffLoadStreamingT2V(io.ComfyNode):
    """Loads StreamingT2V's file, which holds a text encoder and a VAE, too."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLoadStreamingT2V",
            display_name="Load StreamingT2V",
            category=CATEGORY,
            description="Loads StreamingT2V, which makes videos of any length from text: the "
            "model, and the text encoder, image encoder and VAE that lie in its file. Nothing is "
            "downloaded.",
            search_aliases=["text to video", "long video", "streamingt2v", "modelscope"],
            inputs=[_file_input("model", _T2V_SOURCE)],
            outputs=[
                T2VModelType.Output(
                    display_name="model", tooltip="For Long Video From Text and Extend Video."
                ),
                io.Clip.Output(
                    display_name="clip",
                    tooltip="For CLIP Text Encode. Its texts fit the video enhancer, too.",
                ),
                io.ClipVision.Output(
                    display_name="clip_vision",
                    tooltip="OpenCLIP ViT-H, for other nodes; the model has it already.",
                ),
                io.Vae.Output(
                    display_name="vae", tooltip="For the nodes of long videos and Enhance Video."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None) -> bool | str:
        """Report a missing file before the run, instead of the host's "value not in list"."""
        return _problem("Load StreamingT2V", model, _T2V_SOURCE)

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        """Load the file.

        Raises:
            FileNotFoundError: the file does not exist; the message says which one to put where.
            CheckpointError: it is damaged, not complete or another model.
            ImportError: diffusers is not installed.
        """
        loaded, clip, vae = _loaders().load_t2v(_path("Load StreamingT2V", model, _T2V_SOURCE))
        return io.NodeOutput(loaded, clip, loaded.clip_vision, vae)


class Live2DiffLoadVideoEnhancer(io.ComfyNode):
    """Loads the UNet of MS-Vid2Vid-XL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLoadVideoEnhancer",
            display_name="Load Video Enhancer",
            category=CATEGORY,
            description="Loads MS-Vid2Vid-XL, which refines videos at up to 1280x720. Text encoder "
            "and VAE come from Load StreamingT2V, or from any checkpoint of Stable Diffusion 2. "
            "Nothing is downloaded.",
            search_aliases=["upscale video", "vid2vid", "video to video", "enhancer"],
            inputs=[_file_input("enhancer", _ENHANCER_SOURCE)],
            outputs=[EnhancerType.Output(display_name="enhancer", tooltip="For Enhance Video.")],
        )

    @classmethod
    def validate_inputs(cls, enhancer: str | None = None) -> bool | str:
        """Report a missing file before the run, instead of the host's "value not in list"."""
        return _problem("Load Video Enhancer", enhancer, _ENHANCER_SOURCE)

    @classmethod
    def execute(cls, enhancer: str) -> io.NodeOutput:
        """Load the file.

        Raises:
            FileNotFoundError: the file does not exist; the message says which one to put where.
            CheckpointError: it is damaged, not complete or another model.
            ImportError: diffusers is not installed.
        """
        path = _path("Load Video Enhancer", enhancer, _ENHANCER_SOURCE)
        return io.NodeOutput(_loaders().load_enhancer(path))


def _loaders() -> Any:
    """Import the loaders; diffusers, which they need, takes seconds to import."""
    try:
        from ..live2diff_core.streamingt2v import host_parts
    except ImportError as error:
        if error.name != "diffusers":
            raise
        raise ImportError(
            "Text to video needs the package diffusers. Install this pack's requirements into the "
            "Python that runs ComfyUI: pip install -r requirements.txt, in the pack's folder."
        ) from error
    return host_parts


def _file_input(name: str, source: str) -> io.Combo.Input:
    files = folder_paths.get_filename_list(T2V_FOLDER)
    tooltip = f"The file in models/streamingt2v: {source}."
    return io.Combo.Input(name, options=files or [_NO_FILE], tooltip=tooltip)


def _problem(node: str, name: str | None, source: str) -> bool | str:
    try:
        _path(node, name, source)
    except FileNotFoundError as error:
        return str(error)
    return True


def _path(node: str, name: str | None, source: str) -> Path:
    """Return the path of a file in models/streamingt2v."""
    path = folder_paths.get_full_path(T2V_FOLDER, name) if name else None
    if path is not None:
        return Path(path)
    missing = "no file is chosen" if name in (None, "", _NO_FILE) else f"{name} is not there"
    folder = folder_paths.get_folder_paths(T2V_FOLDER)[0]
    raise FileNotFoundError(
        f"{node}: {missing}. Put {source} into {folder}, reload the page and choose it."
    )
