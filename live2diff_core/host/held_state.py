"""State that stays on a device between runs, held so that the host can move it to RAM.

The host makes room for a model by unloading others, and knows only what is in its list of loaded
models. There, a state stands as a model without weights, which is moved as a whole.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import comfy.model_management
import comfy.model_patcher
import torch
from torch import nn

from .memory_need import MemoryNeed, check_memory


class Movable(Protocol):
    """A state that can be moved between devices."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now."""
        ...

    def to(self, device: torch.device) -> None:
        """Move all its tensors that a model reads."""
        ...


class LiveStreamState(nn.Module):
    """Stands in the host's list and its log; has no weights."""


class HeldState(comfy.model_patcher.ModelPatcher):
    """The host's handle of a state. The state owns it, and it must not keep the state alive.

    Between runs the host may move the state to RAM; `in_use` brings it back and keeps it there.
    """

    def __init__(self, state: Movable, load_device: torch.device) -> None:
        """Hold `state`, which models on `load_device` read; where it lies now is up to them."""
        super().__init__(
            LiveStreamState(), load_device, comfy.model_management.unet_offload_device()
        )
        self._state = weakref.ref(state)
        self._loaded, self._users = True, 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the state on its device within a `with` block, and leave it to the host after it.

        Raises:
            StreamMemoryError: it does not fit there any more.
        """
        self._users += 1
        try:
            self._load()
            yield
        finally:
            self._users -= 1
            # Short of memory, the host may have struck it off its list all the same. To bring it
            # back there would then unload the model that the next frame needs.
            management = comfy.model_management
            free = management.get_free_memory(self.load_device)
            if free > management.minimum_inference_memory():
                self._load()

    def _load(self) -> None:
        """Bring the state to its device, and into the host's list."""
        if not self._loaded:
            check_memory(MemoryNeed(self.model_size()), self.load_device)
        if not self._loaded or self not in comfy.model_management.loaded_models():
            comfy.model_management.load_models_gpu([self])

    def _move(self, device: torch.device, loaded: bool) -> int:
        """Move the state if it is not there already; return the bytes moved."""
        state = self._state()
        if state is None or loaded == self._loaded or self.load_device == self.offload_device:
            return 0
        state.to(device)
        self._loaded = loaded
        return state.nbytes

    # What the host asks of the models in its list.

    def model_size(self) -> int:
        """Return the bytes that the state holds now."""
        state = self._state()
        return 0 if state is None else state.nbytes

    def loaded_size(self) -> int:
        """Return the bytes that the state holds on its device now."""
        return self.model_size() if self._loaded else 0

    def current_loaded_device(self) -> torch.device:
        """Return the device that the state is on."""
        return self.load_device if self._loaded else self.offload_device

    def partially_load(self, device_to: torch.device, *_: Any, **__: Any) -> int:
        """Move the state to its device, however little memory there is; return bytes."""
        return self._move(device_to, loaded=True)

    def partially_unload(self, device_to: torch.device, *_: Any, **__: Any) -> int:
        """Move the state to RAM, unless a run uses it; return bytes."""
        return 0 if self._users else self._move(device_to, loaded=False)

    def unpatch_model(
        self, device_to: torch.device | None = None, unpatch_weights: bool = True
    ) -> None:
        """Move the state to RAM, unless a run uses it."""
        if unpatch_weights and device_to is not None:
            self.partially_unload(device_to)
