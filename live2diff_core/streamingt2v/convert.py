"""Converts StreamingT2V's pickled file to safetensors, without running code that lies in it.

A pickle of a training framework names classes of that framework. Here none of them is imported: in
their place stand objects that do nothing, and of the file only the tensors are kept.
"""

from __future__ import annotations

import argparse
import pickle
import sys
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

# All that tensors are made of.
_KNOWN = {
    ("collections", "OrderedDict"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
_STORAGES = frozenset(
    f"{kind}Storage"
    for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Byte", "Bool")
)


class ConvertError(ValueError):
    """A file cannot be converted; the message says why."""


class Inert:
    """Stands in place of any object of a class that is not imported; does nothing."""

    def __new__(cls, *_: object, **__: object) -> Inert:
        """Take any arguments."""
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Ignore them."""

    def __call__(self, *_: object, **__: object) -> Inert:
        """Return itself."""
        return self

    def __setstate__(self, state: object) -> None:
        """Ignore the state."""

    def __setitem__(self, key: object, value: object) -> None:
        """Ignore the item."""

    def append(self, item: object) -> None:
        """Ignore the item."""

    def extend(self, items: object) -> None:
        """Ignore the items."""


class InertUnpickler(pickle.Unpickler):
    """Finds what tensors are made of, and an `Inert` for everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the class or function `name` of `module`, if it is known to be harmless."""
        if (module, name) in _KNOWN or (module == "torch" and name in _STORAGES):
            return super().find_class(module, name)
        return Inert


def read_any(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a pickle of any classes, without importing them.

    Raises:
        ConvertError: it cannot be read, or holds no named tensors.
    """
    module = ModuleType("inert")
    module.__dict__.update(Unpickler=InertUnpickler, load=_load)
    try:
        content = torch.load(
            str(path), map_location="cpu", pickle_module=module, weights_only=False
        )
    except Exception as error:
        # Damaged bytes raise almost anything.
        raise ConvertError(f"{path}: it cannot be read ({error}).") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    found = content.items() if isinstance(content, Mapping) else ()
    tensors = {name: tensor for name, tensor in found if isinstance(tensor, Tensor)}
    if not tensors:
        raise ConvertError(f"{path}: it holds no tensors by name.")
    return OrderedDict(tensors)


def _load(file: Any, **options: Any) -> Any:
    return InertUnpickler(file, **options).load()


def convert(path: Path, output: Path, half: bool = True) -> int:
    """Write the tensors of `path` to `output`, a safetensors; return how many.

    Args:
        path: the pickle.
        output: the new file.
        half: whether tensors of float32 are rounded to float16.

    Raises:
        ConvertError: from `read_any`, or `output` is there already.
    """
    if output.exists():
        raise ConvertError(f"{output} is there already; move it away or choose another name.")
    dtype = torch.float16 if half else None
    tensors = {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous().clone()
        for name, tensor in read_any(path).items()
    }
    part = output.with_name(f"{output.name}.part")
    save_file(tensors, str(part))
    part.replace(output)
    return len(tensors)


def main(arguments: list[str] | None = None) -> int:
    """Convert the file on the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="convert_streamingt2v.py", description=__doc__)
    parser.add_argument("file", type=Path, help="streaming_t2v.ckpt")
    parser.add_argument("output", type=Path, nargs="?", help="by default FILE.safetensors")
    parser.add_argument(
        "--float32", action="store_true", help="keep the numbers as they are, at twice the size"
    )
    options = parser.parse_args(arguments)
    output = options.output or options.file.with_suffix(".safetensors")
    try:
        count = convert(options.file, output, half=not options.float32)
    except (ConvertError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"{count} tensors are in {output}.\n")
    return 0
