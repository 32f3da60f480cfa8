"""A server's base directory: this checkout linked into custom_nodes, and model folders.

Standard library only. ComfyUI is started with `--base-directory` on a folder of ours, so that
nothing is ever written into a user's ComfyUI or among their models.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from devtools.console import ToolError
from devtools.paths import APP_NAME, REPO, cache_dir

# ComfyUI's names of the model folders that the workflows use.
MODEL_KINDS = (
    "animatediff_models",
    "checkpoints",
    "controlnet",
    "live2diff",
    "loras",
    "midas",
    "streamingt2v",
    "vae",
    "vae_approx",
)


def default_workspace() -> Path:
    """Return the workspace of this checkout; each checkout has its own."""
    key = hashlib.sha256(str(REPO).encode()).hexdigest()[:8]
    return cache_dir() / "workspace" / key


def cache_models() -> Path:
    """Return the folder for real models, used when the user has no ComfyUI."""
    return cache_dir() / "models"


def prepare_workspace(base: Path, model_folders: Sequence[Path] = ()) -> Path:
    """Make or refresh a server's base directory at `base` and return it.

    This checkout appears as custom_nodes/comfyui-live2diff. `model_folders` are laid out like
    ComfyUI's `models/`; where two hold the same name, the earlier one wins. Their list is
    written to `base`/extra_model_paths.yaml, see `extra_paths_file`.
    """
    for name in ("input", "output", "custom_nodes", "models", "user"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link_folder(REPO, base / "custom_nodes" / APP_NAME)
    extra_paths_file(base).write_text(extra_paths_yaml(model_folders), encoding="utf-8")
    return base


def extra_paths_file(base: Path) -> Path:
    """Return the path of the file that `--extra-model-paths-config` reads."""
    return base / "extra_model_paths.yaml"


def extra_paths_yaml(model_folders: Sequence[Path]) -> str:
    """Format an extra_model_paths.yaml: one section for each folder, in order."""
    lines = []
    for index, folder in enumerate(model_folders):
        # A JSON string is a YAML string: no path needs further quoting.
        lines += [f"folder_{index}:", f"  base_path: {json.dumps(str(folder))}"]
        lines += [f"  {kind}: {kind}" for kind in MODEL_KINDS]
    return "\n".join(lines or ["{}"]) + "\n"


def link_folder(source: Path, link: Path) -> None:
    """Make `link` point to the folder `source`, as a symlink or, on Windows, a junction."""
    if link.is_symlink() or link.exists():
        if link.resolve() == source.resolve():
            return
        if not link.is_symlink():
            raise ToolError(f"{link} exists and is no link to {source}; move it away")
        link.unlink()
    if os.name == "nt":
        # A junction, unlike a symlink, needs no administrator rights.
        command = ["cmd", "/c", "mklink", "/J", str(link), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise ToolError(f"could not link {link} to {source}: {done.stderr.strip()}")
    else:
        link.symlink_to(source, target_is_directory=True)


def link_file(source: Path, link: Path) -> None:
    """Make the file `source` appear at `link`: a link where possible, else a copy."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(source, link)
            return
        except OSError as error:
            failure = error
    raise ToolError(f"could not place {source} at {link}: {failure.strerror}")
