"""Latents, depth and texts on the disk: computed once, named by content and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from live2diff_core.run.state_file import write_tensors

VALUES = "values"
# Changes whenever the values under a name would.
_VERSION = "1"


class Cache:
    """Tensors by name in a folder. A file is either whole or not there."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def path(self, kind: str, *content: Any) -> Path:
        """Return the file of what `content` determines: names, numbers and texts."""
        text = "\0".join([_VERSION, kind, *map(str, content)])
        return self._folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}.safetensors"

    def keep(self, path: Path, compute: Callable[[], Tensor], about: Mapping[str, str]) -> None:
        """Compute and write `path`, unless it is there.

        Args:
            path: from `path`.
            compute: returns the tensor; kept in float16.
            about: texts that say for people what the file holds.
        """
        if not path.is_file():
            values = compute().to("cpu", torch.float16).contiguous()
            write_tensors(path, {VALUES: values}, about)


def length(path: Path) -> int:
    """Return the number of frames in a file; 0 if it is damaged."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return int(file.get_slice(VALUES).get_shape()[0])
    except SafetensorError:
        return 0


def read_frames(path: Path, frames: range) -> Tensor:
    """Read some frames from a file, which is mapped into memory: [F, 4, h, w] float32."""
    with safe_open(str(path), framework="pt") as file:
        values = file.get_slice(VALUES)[frames.start : frames.stop]
    return values[:: frames.step].float()


@lru_cache(maxsize=1024)
def read_text(path: Path) -> Tensor:
    """Read a text: [tokens, channels] float32."""
    with safe_open(str(path), framework="pt") as file:
        return file.get_tensor(VALUES)[0].float()


def in_batches(frames: Iterator[Any], size: int) -> Iterator[list[Any]]:
    """Group frames into lists of `size`, the last one shorter."""
    batch: list[Any] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
