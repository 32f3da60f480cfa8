"""Registers the model folders that this pack reads with ComfyUI."""

from __future__ import annotations

import os

import folder_paths

MOTION_FOLDERS = ("live2diff", "animatediff_models")
DEPTH_FOLDER = "midas"
T2V_FOLDER = "streamingt2v"

_MOTION_EXTENSIONS = frozenset({".ckpt", ".pt", ".pth", ".safetensors"})
_DEPTH_EXTENSIONS = frozenset({".pt", ".pth", ".safetensors"})


def register_model_folders() -> None:
    """Add the folders of this pack's models, in models/, to ComfyUI's.

    Registered paths, from extra_model_paths.yaml or another pack, stay and keep their order; a
    second call changes nothing.
    """
    for name in MOTION_FOLDERS:
        _register(name, _MOTION_EXTENSIONS)
    _register(DEPTH_FOLDER, _DEPTH_EXTENSIONS)
    _register(T2V_FOLDER, _MOTION_EXTENSIONS)


def _register(name: str, extensions: frozenset[str]) -> None:
    folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
    paths, known = folder_paths.folder_names_and_paths[name]
    # A folder that only extra_model_paths.yaml names has no extensions, and would list all files.
    folder_paths.folder_names_and_paths[name] = (paths, set(known) | extensions)
