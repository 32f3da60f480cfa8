"""Where ComfyUI's code is, for commands that run outside of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def find_host(folder: Path, purpose: str, cpu: bool) -> None:
    """Make ComfyUI's code importable, and tell it whether to use the CPU alone.

    Args:
        folder: ComfyUI's, if its code cannot be imported yet.
        purpose: what needs it, for the message.
        cpu: whether there is no GPU.

    Raises:
        ImportError: it is not in `folder`.
    """
    if importlib.util.find_spec("comfy") is None:
        if not (folder / "comfy" / "model_management.py").is_file():
            raise ImportError(
                f"{purpose} runs ComfyUI's code, which is not in {folder}. Give its folder with "
                "--comfyui."
            )
        sys.path.insert(0, str(folder))
    from comfy.cli_args import args

    if cpu:
        args.cpu = True
