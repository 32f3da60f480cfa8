"""Models that the host must load and unload as a whole.

Short of memory, the host leaves weights behind, and its own layers fetch them when they run. Other
libraries' layers do not: they would compute on two devices at once.
"""

from __future__ import annotations

from typing import Any

import comfy.model_patcher
import torch
from torch import nn

# What the host calls "all of it".
_ALL_BYTES = 1e32


class WholePatcher(comfy.model_patcher.ModelPatcher):
    """A ModelPatcher that takes no part of its model to a device, or from it, without the rest."""

    def partially_load(
        self, device_to: torch.device, extra_memory: float = 0, force_patch_weights: bool = False
    ) -> float:
        """Load everything, even where the host has room for `extra_memory` bytes; return bytes."""
        return super().partially_load(device_to, _ALL_BYTES, force_patch_weights)

    def partially_unload(
        self, device_to: torch.device, memory_to_free: float = 0, force_patch_weights: bool = False
    ) -> float:
        """Unload everything, even where the host needs `memory_to_free` bytes; return bytes."""
        freed = self.loaded_size()
        self.unpatch_model(device_to, unpatch_weights=True)
        return freed


def whole_patcher(model: nn.Module, load_device: torch.device, offload_device: torch.device) -> Any:
    """Put a model whose layers are not the host's under the host's management.

    Returns:
        The host's patcher for dynamic VRAM where it uses that, which loads such layers in full by
        itself, and a `WholePatcher` elsewhere.
    """
    patcher = comfy.model_patcher.CoreModelPatcher(
        model, load_device=load_device, offload_device=offload_device
    )
    if patcher.is_dynamic():
        return patcher
    return WholePatcher(model, load_device=load_device, offload_device=offload_device)
