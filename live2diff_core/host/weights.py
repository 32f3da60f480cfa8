"""Names for weights by content: a few values of every tensor are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

_SAMPLES = 8

# Weights do not change in a loaded model: they are looked at once.
_seen: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def sample_weights(module: nn.Module, prefix: str, originals: Mapping[str, Any]) -> str:
    """Name a module's own weights.

    Args:
        module: the network.
        prefix: of its parameters' names in `originals`.
        originals: what the host keeps of those that LoRAs changed.
    """
    if module not in _seen:
        samples = [
            sample(originals[prefix + name].weight if prefix + name in originals else weight)
            for name, weight in module.named_parameters()
        ]
        _seen[module] = digest(samples)
    return _seen[module]


def sample(tensor: Tensor) -> bytes:
    """A few values from all over a tensor, and its shape."""
    shape = str(tuple(tensor.shape)).encode()
    if not tensor.numel() or tensor.is_meta:
        return shape
    if tensor.ndim == 0:
        tensor = tensor.reshape(1)
    # Rows of an unflattened tensor: flattening could copy all of it.
    while tensor.ndim > 1:
        tensor = tensor[tensor.shape[0] // 2]
    return shape + tensor_bytes(tensor[:: max(1, len(tensor) // _SAMPLES)][:_SAMPLES])


def tensor_bytes(tensor: Tensor) -> bytes:
    """All values of a tensor, as float32."""
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy().tobytes()


def digest(parts: Iterable[bytes | str]) -> str:
    """Name what `parts` hold: '#' and 8 hex digits."""
    result = hashlib.blake2b(digest_size=4)
    for part in parts:
        result.update(part.encode() if isinstance(part, str) else part)
        result.update(b"\0")
    return f"#{result.hexdigest()}"
