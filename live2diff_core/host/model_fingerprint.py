"""Recognises a MODEL by content.

After other workflows, an unload, a reload or a restart, the host has other objects with other ids
for the same weights. So these are looked at: a few values of every tensor.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ..stream.memory import applied_memories
from .weights import digest, sample, sample_weights

_KEPT_PATCHES = 64

# Patches of one id do not change: they are looked at once.
_patches_seen: OrderedDict[Any, str] = OrderedDict()


def fingerprint_model(model: Any) -> dict[str, str]:
    """Name what decides how a MODEL translates, apart from prompts.

    What other nodes' patches (FreeU, IP-Adapter and the like) do is known to themselves only; they
    are told apart by the names of their functions.

    Args:
        model: ComfyUI's ModelPatcher, between runs.

    Returns:
        A short name for each part; see `settings_differences`.
    """
    parts = {
        "model": sample_weights(model.model.diffusion_model, "diffusion_model.", model.backup),
        "LoRAs": _patches(model),
        "model patches": digest([repr(_names(model.model_options)), _sampling(model)]),
    }
    for memory in applied_memories(model).values():
        parts |= memory.fingerprint()
    return parts


def fingerprint_module(module: nn.Module) -> str:
    """Name a network by its weights."""
    return sample_weights(module, "", {})


def _patches(model: Any) -> str:
    """Name what is to be added to the weights: LoRAs and merges, with their strengths."""
    if not model.patches:
        return "none"
    key = model.patches_uuid
    if key not in _patches_seen:
        parts: list[Any] = []
        for name in sorted(model.patches):
            for strength, content, strength_model, offset, _ in model.patches[name]:
                parts.append(f"{name} {strength} {strength_model} {offset}")
                parts += _contents(content)
        _patches_seen[key] = digest(parts)
        while len(_patches_seen) > _KEPT_PATCHES:
            _patches_seen.popitem(last=False)
    return _patches_seen[key]


def _contents(value: Any) -> Iterator[bytes | str]:
    """Samples of all tensors in a patch, and its numbers and names."""
    if isinstance(value, Tensor):
        yield sample(value)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _contents(part)
    elif hasattr(value, "weights"):  # one of the host's weight adapters
        yield type(value).__name__
        yield from _contents(value.weights)
    elif isinstance(value, (str, int, float)):
        yield str(value)


def _names(value: Any) -> Any:
    """Reduce a tree of callables and settings to the names in it."""
    if isinstance(value, dict):
        return sorted((str(key), _names(part)) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return [_names(part) for part in value]
    return getattr(value, "__qualname__", type(value).__qualname__)


def _sampling(model: Any) -> str:
    kinds = type(model.get_model_object("model_sampling")).__mro__
    return " ".join(kind.__name__ for kind in kinds)
