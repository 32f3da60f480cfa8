"""Names for models, prompts, graphs and files: equal content has equal names.

After other workflows, a reload or a restart the host has other objects for the same content, so
objects cannot be compared. Weights are named by a few values of every tensor, prompts by all
values. The effect of other packs' patches is in no tensor; the graph that made them names them.

Saved streams on users' disks are recognised by these names: they must not change.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..stream.memory import applied_memories
from ..stream.prompt_track import PromptTrack

_SAMPLES = 8
_KEPT_PATCHES = 64
_EDGE_BYTES = 1 << 20
# Entries that the host adds to a conditioning and that differ between runs.
_PASSING = ("uuid", "additional_models")

# Loaded weights and patches with one uuid do not change, so they are read once.
_weights_named: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
_patches_named: OrderedDict[Any, str] = OrderedDict()


def digest(parts: Iterable[bytes | str]) -> str:
    """Name a sequence of parts: '#' and 8 hex digits."""
    result = hashlib.blake2b(digest_size=4)
    for part in parts:
        result.update(part.encode() if isinstance(part, str) else part)
        result.update(b"\0")
    return f"#{result.hexdigest()}"


def json_digest(value: Any) -> str:
    """Name a JSON value, independently of the order of its keys: 16 hex digits."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def model_identity(model: Any) -> dict[str, str]:
    """Name everything but prompts that determines how a MODEL (a ModelPatcher) translates.

    The parameters of other nodes' patches (FreeU, IP-Adapter and the like) cannot be read; such
    patches are distinguished by the names of their functions.

    Returns:
        A short name for each part, by the part's title.
    """
    sampling = type(model.get_model_object("model_sampling")).__mro__
    parts = {
        "model": weights_identity(model.model.diffusion_model, "diffusion_model.", model.backup),
        "LoRAs": _patches_identity(model),
        "model patches": digest(
            [repr(_names(model.model_options)), " ".join(kind.__name__ for kind in sampling)]
        ),
    }
    for memory in applied_memories(model).values():
        parts |= memory.fingerprint()
    return parts


def weights_identity(
    module: nn.Module, prefix: str = "", originals: Mapping[str, Any] | None = None
) -> str:
    """Name a module's own weights.

    Args:
        module: the network.
        prefix: prefix of its parameters' names in `originals`.
        originals: the host's backup of weights that LoRAs changed.
    """
    originals = originals or {}
    if module not in _weights_named:
        _weights_named[module] = digest(
            _sample(originals[prefix + name].weight if prefix + name in originals else weight)
            for name, weight in module.named_parameters()
        )
    return _weights_named[module]


def prompt_identity(conds: Iterable[Sequence[Any]], control: bool = False) -> str:
    """Name the texts of ComfyUI conditionings, and where and how strongly they apply.

    Args:
        conds: [[tensor, {...}], ...].
        control: include ControlNets, their weights and their images. In a live stream they have
            another image for every frame.
    """
    without = _PASSING if control else (*_PASSING, "control")
    return digest(
        part
        for text, extra in conds
        for value in (text, {key: extra[key] for key in extra if key not in without})
        for part in _values(value)
    )


def prompt_layout(conds: Iterable[Sequence[Any]]) -> str:
    """Describe where and when each conditioning applies, which determines the caches' layout."""
    return "; ".join(_layout(extra) for _, extra in conds)


def graph_identity(
    graph: Mapping[str, Any] | None, node_id: str | None, without: Collection[str] = ()
) -> str:
    """Name all nodes, with their inputs, that a node's linked inputs come from.

    Args:
        graph: in API format, as the host passes it to nodes; None when it does not.
        node_id: the node.
        without: inputs to ignore.

    Returns:
        16 hex digits that do not depend on the numbers of nodes; "unknown" without a graph.
    """
    if not graph or node_id is None or node_id not in graph:
        return "unknown"
    named: dict[str, str] = {}
    inputs = {
        name: _input(graph, value, named)
        for name, value in graph[node_id].get("inputs", {}).items()
        if name not in without and _is_link(graph, value)
    }
    return json_digest(inputs)


def file_identity(source: str | BytesIO) -> str:
    """Name a video by its size and by the bytes at its beginning and end: 16 hex digits.

    Folders of pictures are named by the files' sizes and times, because in many formats all
    pictures have the same size.
    """
    if isinstance(source, BytesIO):
        return _edges(source, source.getbuffer().nbytes)
    path = Path(source)
    if path.is_file():
        with path.open("rb") as file:
            return _edges(file, path.stat().st_size)
    folder = path if path.is_dir() else path.parent
    stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    files = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
    return hashlib.sha256(repr((path.name, files)).encode()).hexdigest()[:16]


def _edges(file: Any, size: int) -> str:
    result = hashlib.sha256(str(size).encode())
    for position in (0, max(0, size - _EDGE_BYTES)):
        file.seek(position)
        result.update(file.read(_EDGE_BYTES))
    return result.hexdigest()[:16]


def _sample(tensor: Tensor) -> bytes:
    """Return a tensor's shape and a few of its values, spread over one row."""
    shape = str(tuple(tensor.shape)).encode()
    if not tensor.numel() or tensor.is_meta:
        return shape
    if tensor.ndim == 0:
        tensor = tensor.reshape(1)
    # Index rows rather than flatten, which could copy the whole tensor.
    while tensor.ndim > 1:
        tensor = tensor[tensor.shape[0] // 2]
    return shape + _bytes(tensor[:: max(1, len(tensor) // _SAMPLES)][:_SAMPLES])


def _bytes(tensor: Tensor) -> bytes:
    """Return all values of a tensor, as float32."""
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()


def _patches_identity(model: Any) -> str:
    """Name the patches of the weights: LoRAs and merges, with their strengths."""
    if not model.patches:
        return "none"
    key = model.patches_uuid
    if key not in _patches_named:
        parts: list[bytes | str] = []
        for name in sorted(model.patches):
            for strength, content, strength_model, offset, _ in model.patches[name]:
                parts.append(f"{name} {strength} {strength_model} {offset}")
                parts += _patch_values(content)
        _patches_named[key] = digest(parts)
        while len(_patches_named) > _KEPT_PATCHES:
            _patches_named.popitem(last=False)
    return _patches_named[key]


def _patch_values(value: Any) -> Iterator[bytes | str]:
    """Yield samples of all tensors in a patch, and its numbers and names."""
    if isinstance(value, Tensor):
        yield _sample(value)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _patch_values(part)
    elif hasattr(value, "weights"):  # one of the host's weight adapters
        yield type(value).__name__
        yield from _patch_values(value.weights)
    elif isinstance(value, (str, int, float)):
        yield str(value)


def _names(value: Any) -> Any:
    """Reduce a tree of callables and values to the names in it."""
    if isinstance(value, dict):
        return sorted((str(key), _names(part)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return [_names(part) for part in value]
    return getattr(value, "__qualname__", type(value).__qualname__)


def _layout(extra: Mapping[str, Any]) -> str:
    keys = ("area", "start_percent", "end_percent")
    named = [f"{key} {extra[key]}" for key in keys if extra.get(key)]
    if extra.get("set_area_to_bounds") and extra.get("mask") is not None:
        named.append(f"mask {digest([_bytes(extra['mask'])])}")
    return ", ".join(named) or "all"


def _values(value: Any) -> Iterator[bytes | str]:
    """Yield everything that a value holds; for an object of an unknown type, its type."""
    if isinstance(value, Tensor):
        yield str(tuple(value.shape))
        # Copy frame by frame, because a batch of control images may be as long as the video.
        yield from (_bytes(part) for part in (value if value.ndim > 1 else [value]))
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield str(key)
            yield from _values(value[key])
    elif isinstance(value, PromptTrack):
        yield str(value.timeline)
        yield from _values(value.texts)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _values(part)
    elif hasattr(value, "cond_hint_original"):
        yield from _control(value)
    elif isinstance(value, (str, int, float)) or value is None:
        yield str(value)
    else:
        yield type(value).__qualname__


def _control(control: Any) -> Iterator[bytes | str]:
    """Yield the values of one of the host's ControlNets and of those chained before it."""
    yield type(control).__name__
    yield f"{control.strength} {control.timestep_percent_range}"
    yield str(getattr(control, "strength_type", ""))
    yield from _values(control.cond_hint_original)
    yield from _values(getattr(control, "control_weights", None))
    yield from _values(getattr(control, "extra_args", None))
    model = getattr(control, "control_model", None) or getattr(control, "t2i_model", None)
    if model is not None:
        yield weights_identity(model)
    yield from _values(control.previous_controlnet)


def _input(graph: Mapping[str, Any], value: Any, named: dict[str, str]) -> Any:
    """Return an input's value; for a link, the name and output of its source node."""
    if not _is_link(graph, value):
        return value
    source, output = value
    if source not in named:
        named[source] = "a loop"  # The host refuses loops; this only ends them.
        node = graph[source]
        inputs = {key: _input(graph, v, named) for key, v in node.get("inputs", {}).items()}
        named[source] = json_digest([node.get("class_type"), inputs])
    return [named[source], output]


def _is_link(graph: Mapping[str, Any], value: Any) -> bool:
    if not (isinstance(value, list) and len(value) == 2):
        return False
    return isinstance(value[0], str) and isinstance(value[1], int) and value[0] in graph
