"""A stream's state on disk: safetensors, written whole or not at all, tied to what made it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "comfyui-live2diff stream 2"


class StateFileError(ValueError):
    """A state that cannot be taken up; the message says why."""


def fingerprint(settings: Mapping[str, Any]) -> str:
    """Name a set of settings: 16 hex digits that change when any of them does.

    Args:
        settings: what JSON can hold; order does not matter.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save_state(path: Path, state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> None:
    """Write a state so that a crash leaves either the old file or the new one, never half.

    Args:
        path: the file, in a folder that exists.
        state: tensors by name; they may lie on any device.
        settings: what the stream was made with; `load_state` refuses another's.

    Raises:
        StateFileError: it cannot be written; what was there before is still there.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    tensors = _on_their_own(tensors)
    metadata = {"format": FORMAT, "settings": json.dumps(settings, sort_keys=True, default=str)}
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, str(temporary), metadata)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (SafetensorError, OSError) as error:
        raise StateFileError(
            f"The stream's state cannot be written to {path} ({error}). Is the disk full? Make "
            "room, then run it again."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _on_their_own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory with another one: repeated frames do; the file cannot."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state and the settings it was made with.

    Raises:
        StateFileError: missing, damaged, or another kind of file.
    """
    if not path.is_file():
        raise StateFileError(f"There is no saved stream {path.name}.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise StateFileError(f"{path.name} is damaged and cannot be read ({error}).") from error
    if metadata.get("format") != FORMAT:
        raise StateFileError(
            f"{path.name} is not a saved stream (expected {FORMAT!r}, found "
            f"{metadata.get('format')!r})."
        )
    return tensors, json.loads(metadata["settings"])


def load_state(path: Path, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the state of a stream made with `settings`.

    Raises:
        StateFileError: from `read_state`, or made with other settings; names those that differ.
    """
    tensors, saved = read_state(path)
    now = json.loads(json.dumps(settings, sort_keys=True, default=str))
    differing = sorted(k for k in {*saved, *now} if saved.get(k) != now.get(k))
    if differing:
        changes = ", ".join(f"{k} {saved.get(k)!r} -> {now.get(k)!r}" for k in differing)
        raise StateFileError(f"{path.name} belongs to a stream with other settings: {changes}.")
    return tensors
