"""A stream's state on disk: a safetensors file with its identity, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..stream.state import StateError, describe
from ..video.output import sync_folder
from .checksum import checksum

FORMAT = "comfyui-live2diff stream 2"
# Entries of the metadata that version 0.1.0 did not write.
_CONTENTS, _CHECKSUM = "contents", "checksum"


class StateFileError(ValueError):
    """A state cannot be written or loaded; the message says why."""


class UnusableStateError(StateFileError):
    """The file itself is at fault: damaged, of another kind, or of another stream."""


def save_state(path: Path, state: Mapping[str, Tensor], identity: Mapping[str, Any]) -> None:
    """Write a state atomically: a crash leaves either the old file or the new one.

    Args:
        path: the file, in a folder that exists.
        state: tensors by name, on any device.
        identity: the stream's identity; `load_state` refuses any other.

    Raises:
        StateFileError: the file cannot be written; the old file still exists.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    tensors = _on_their_own(tensors)
    settings = json.dumps(identity, sort_keys=True, default=str)
    metadata = {
        "format": FORMAT,
        "settings": settings,
        _CONTENTS: contents(tensors),
        _CHECKSUM: checksum(settings, tensors),
    }
    try:
        write_tensors(path, tensors, metadata)
    except (SafetensorError, OSError) as error:
        raise StateFileError(
            f"The stream's state cannot be written to {path} ({error}). Is the disk full? Make "
            "room, then run it again."
        ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file that appears under its name only when it is whole and on the disk.

    Args:
        path: the file, in a folder that exists.
        tensors: contiguous tensors on the CPU, each with memory of its own.
        metadata: texts by name.

    Raises:
        SafetensorError, OSError: the file cannot be written; an old one still exists.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file(dict(tensors), str(temporary), dict(metadata))
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _on_their_own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share storage, as repeated frames do, because the file cannot share."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in seen else tensor
        seen.add(place)
    return apart


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a state and the identity of its stream.

    Raises:
        UnusableStateError: the file is damaged, or of another kind.
        StateFileError: it is missing or cannot be read, which does not mean that it is damaged.
    """
    with _opened(path) as file:
        identity = _identity(file, path)
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    try:
        if metadata.get(_CONTENTS) not in (None, contents(tensors)):
            raise StateError("tensors are missing, or are others than those that were saved")
        _check_finite(tensors)
        if metadata.get(_CHECKSUM) not in (None, checksum(metadata["settings"], tensors)):
            raise StateError("its content is not what was written")
    except StateError as error:
        raise damaged(path, error) from error
    return tensors, identity


def contents(tensors: Mapping[str, Tensor]) -> str:
    """Name the tensors of a state by their names, types and sizes, but not by their values."""
    listed = [f"{name} {describe(tensors[name])}" for name in sorted(tensors)]
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


def damaged(path: Path, error: Exception) -> UnusableStateError:
    """Return the error for a file whose content is not what was saved, with the reason `error`."""
    return UnusableStateError(
        f"{path.name} is damaged and is not used: {str(error).rstrip('.')}. Use another copy of "
        "it, or begin anew without it."
    )


def _check_finite(tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise StateError(f"'{name}' holds NaN or infinite values")


def read_identity(path: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """Read the identity in a video's state file, without its tensors.

    Args:
        path: the file.
        now: identity of the current stream, for entries that earlier versions did not write.

    Raises:
        StateFileError: from `read_state`.
    """
    with _opened(path) as file:
        return upgraded(_identity(file, path), now)


def load_state(path: Path, identity: Mapping[str, Any]) -> dict[str, Tensor]:
    """Read the state of a video's stream.

    Raises:
        StateFileError: from `read_state`.
        UnusableStateError: from `read_state`, or the identities differ; the message says how.
    """
    tensors, saved = read_state(path)
    changes = differences(upgraded(saved, identity), normalised(identity))
    if changes:
        raise UnusableStateError(f"{path.name} belongs to a stream with other settings: {changes}.")
    return tensors


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describe how two identities differ: 'seed 7 -> 8, size 64x64 -> 128x64'; empty if equal."""
    differing = [k for k in {**before, **now} if before.get(k) != now.get(k)]
    return ", ".join(f"{k} {before.get(k, 'none')} -> {now.get(k, 'none')}" for k in differing)


def normalised(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an identity to the form that it has when read from a file, for comparisons."""
    return dict(json.loads(json.dumps(dict(identity), default=str)))


def upgraded(saved: dict[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the identity of a video saved by version 0.1.0 to the current titles.

    Raises:
        StateFileError: it is no identity of a video.
    """
    if "shared noise" not in saved:
        return saved
    old = dict(saved)
    try:
        shared, depth, rule = (old.pop(k) for k in ("shared noise", "depth model", "frame filter"))
        return {
            **old,
            "timesteps": " ".join(f"{step:g}" for step in old["timesteps"]),
            "noise levels": " ".join(f"{sigma:.4g}" for sigma in old["sigmas"]),
            "noise": "same for all frames" if shared else "fresh per frame",
            "few-step model": now.get("few-step model"),
            "depth": "no" if depth == "none" else f"yes {depth}",
            "skipped frames": rule.removeprefix("FilterSettings(").removesuffix(")"),
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UnusableStateError(f"this is not the state of a video ({error!r}).") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    # First by itself, to tell a file that may not be read from one that is damaged.
    try:
        # To open a pipe would wait for another process for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnusableStateError(f"{path.name} is no file, but a folder, a pipe or a device.")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise StateFileError(f"There is no saved stream {path.name}.") from error
    except OSError as error:
        raise StateFileError(
            f"The saved stream {path} cannot be read ({error.strerror}). Nothing has been changed: "
            "let ComfyUI read it, or move it away."
        ) from error
    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise UnusableStateError(f"{path.name} is damaged and cannot be read ({error}).") from error


def _identity(file: Any, path: Path) -> dict[str, Any]:
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT:
        raise UnusableStateError(
            f"{path.name}: this is not a saved stream (expected {FORMAT!r}, found "
            f"{metadata.get('format')!r})."
        )
    try:
        identity = json.loads(metadata["settings"])
    except (LookupError, ValueError, RecursionError) as error:
        raise damaged(path, StateError(f"its settings cannot be read ({error!r})")) from error
    if not isinstance(identity, dict):
        raise damaged(path, StateError(f"its settings are none ({type(identity).__name__})"))
    return identity
