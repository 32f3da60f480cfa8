"""Recognises a MODEL and its prompts by content.

After other workflows, an unload, a reload or a restart, the host has other objects with other ids
for the same weights. So these are looked at: a few values of every tensor.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .unet_patch import applied_motion

_SAMPLES = 8
_KEPT_PATCHES = 64

# Weights do not change in a loaded model, nor do patches of one id: both are looked at once.
_weights_seen: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()
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
    applied = applied_motion(model)
    parts = {
        "model": _weights(model.model.diffusion_model, "diffusion_model.", model.backup),
        "LoRAs": _patches(model),
        "model patches": _digest([repr(_names(model.model_options)), _sampling(model)]),
    }
    if applied is None:
        return parts
    config = applied.config
    return {
        **parts,
        "motion module": _weights(applied.motion.model, "", applied.motion.patcher.backup),
        "window size": str(config.window_size),
        "warm-up frames": str(config.warmup_frames),
        "attention mode": config.attention_mode.value,
    }


def fingerprint_prompt(conds: Iterable[Sequence[Any]]) -> str:
    """Name the texts of ComfyUI conditionings, [[tensor, {...}], ...]."""
    tensors = []
    for tensor, extra in conds:
        tensors += [tensor, extra.get("pooled_output")]
    return _digest(_bytes(tensor) for tensor in tensors if isinstance(tensor, Tensor))


def fingerprint_module(module: nn.Module) -> str:
    """Name a network by its weights."""
    return _weights(module, "", {})


def conditioning_layout(conds: Iterable[Sequence[Any]]) -> str:
    """Say where and when each conditioning applies: the caches are laid out by it."""
    return "; ".join(_layout(extra) for _, extra in conds)


def _layout(extra: Mapping[str, Any]) -> str:
    named = [
        f"{key} {extra[key]}" for key in ("area", "start_percent", "end_percent") if extra.get(key)
    ]
    if extra.get("set_area_to_bounds") and extra.get("mask") is not None:
        named.append(f"mask {_digest([_bytes(extra['mask'])])}")
    return ", ".join(named) or "all"


def _weights(module: nn.Module, prefix: str, originals: Mapping[str, Any]) -> str:
    """Name a module's own weights; the host keeps `originals` of those that LoRAs changed."""
    if module not in _weights_seen:
        samples = [
            _sample(originals[prefix + name].weight if prefix + name in originals else weight)
            for name, weight in module.named_parameters()
        ]
        _weights_seen[module] = _digest(samples)
    return _weights_seen[module]


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
        _patches_seen[key] = _digest(parts)
        while len(_patches_seen) > _KEPT_PATCHES:
            _patches_seen.popitem(last=False)
    return _patches_seen[key]


def _contents(value: Any) -> Iterator[bytes | str]:
    """Samples of all tensors in a patch, and its numbers and names."""
    if isinstance(value, Tensor):
        yield _sample(value)
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


def _sample(tensor: Tensor) -> bytes:
    """A few values from all over a tensor, and its shape."""
    shape = str(tuple(tensor.shape)).encode()
    if not tensor.numel() or tensor.is_meta:
        return shape
    if tensor.ndim == 0:
        tensor = tensor.reshape(1)
    # Rows of an unflattened tensor: flattening could copy all of it.
    while tensor.ndim > 1:
        tensor = tensor[tensor.shape[0] // 2]
    return shape + _bytes(tensor[:: max(1, len(tensor) // _SAMPLES)][:_SAMPLES])


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()


def _digest(parts: Iterable[bytes | str]) -> str:
    digest = hashlib.blake2b(digest_size=4)
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return f"#{digest.hexdigest()}"
