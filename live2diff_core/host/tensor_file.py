"""Read files of tensors without running code in them; refuse other files with the reason."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

# First bytes of what torch saves: zip files, and bare pickles before torch 1.6.
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# The name in torch's `weights_only` error: "Unsupported global: GLOBAL os.system was not ...".
_FORBIDDEN = re.compile(r"GLOBAL ([\w.]+)")


class TensorFileError(ValueError):
    """The tensors of a file cannot be used; the message says why."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a safetensors file or a pickle; its first bytes say which it is.

    Wrappers (`state_dict`, `model`) and the prefix `module.` of all names are removed.

    Raises:
        TensorFileError: there is no such file, or it is damaged, holds code or no named tensors.
    """
    if not path.is_file():
        raise TensorFileError("there is no such file.")
    content = _read(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise TensorFileError(f"it holds a {kind}, not named tensors: no tensors by name.")
    tensors = {
        str(name).removeprefix("module."): tensor
        for name, tensor in content.items()
        if isinstance(tensor, Tensor)
    }
    if not tensors:
        raise TensorFileError("it holds no tensors by name.")
    return tensors


def _read(path: Path) -> object:
    with path.open("rb") as file:
        head = file.read(16)
    safetensors, zipped = head[8:9] == b"{", head.startswith(_ZIP)
    if not (safetensors or zipped or head.startswith(_PICKLE)):
        raise TensorFileError(
            f"this is {_kind(head)}, not a file of tensors ({path.stat().st_size} bytes). A web "
            "page or a pointer file is often saved in place of a model: download it again."
        )
    try:
        if safetensors:
            return load_file(path)
        if zipped and not zipfile.is_zipfile(path):
            raise EOFError("its index is gone")
        return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        raise TensorFileError(_refused(error)) from error
    except Exception as error:
        # Damaged bytes raise almost anything: key, index and type errors, or "invalid argument".
        problem = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TensorFileError(
            f"the file is truncated or damaged ({problem}), or no model at all: download it again."
        ) from error


def _kind(head: bytes) -> str:
    if head.lstrip().startswith(b"<"):
        return "a web page"
    return "a Git LFS pointer" if head.startswith(b"version https://") else "no model at all"


def _refused(error: pickle.UnpicklingError) -> str:
    wanted = _FORBIDDEN.search(str(error))
    if wanted is None:
        return (
            "the file is damaged, or a pickle of more than tensors, which can run code. It was not "
            "loaded."
        )
    return (
        "this pickle asks to run code, which a file of weights never needs. Files that can run "
        f"code are not loaded (it wants {wanted.group(1)})."
    )
