"""The pack's limits, which are in ComfyUI's settings: see web/settings.js."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths


def setting(name: str, default: float) -> float:
    """Return a number from the settings of ComfyUI's default user.

    Settings that were never changed are in no file, and neither are those of a host without pages.
    """
    path = Path(folder_paths.get_user_directory(), "default", "comfy.settings.json")
    try:
        found = json.loads(path.read_text(encoding="utf-8")).get(name, default)
        return max(0.0, float(found))
    except (OSError, ValueError, TypeError, AttributeError):
        return default
