"""ComfyUI's memory management on the pretended device, with as much memory as a test gives it."""

import comfy.model_management
import torch
from pretended_device import AWAY, PretendedDevice

CPU = torch.device("cpu")
# What the host keeps free for activations, whatever it loads.
KEPT_FREE = int(comfy.model_management.minimum_inference_memory())


class PretendedHost:
    """The host as it is with a GPU; use it as a context manager.

    Attributes:
        free: bytes that the device says are free; None is plenty.
    """

    def __init__(self, patch, low=False):
        """Pretend, by a `monkeypatch`; `low` is as with --novram."""
        management = comfy.model_management
        self.free = None
        states = management.VRAMState
        patch.setattr(management, "vram_state", states.NO_VRAM if low else states.NORMAL_VRAM)
        patch.setattr(management, "get_torch_device", lambda: AWAY)
        patch.setattr(management, "should_use_fp16", lambda *_, **__: False)
        patch.setattr(management, "get_total_memory", self._total)
        patch.setattr(management, "get_free_memory", self._free)
        self._device, self._patch = PretendedDevice(), patch

    def __enter__(self):
        comfy.model_management.free_memory(1e30, CPU)
        self._device.__enter__()
        return self

    def __exit__(self, *error):
        self._device.__exit__(*error)
        self.free = None
        comfy.model_management.unload_all_models()

    def place(self, model):
        """Make a MODEL with its memories one of a host with that device."""
        for patcher in (model, *model.get_nested_additional_models()):
            self._patch.setattr(patcher, "load_device", AWAY)
            self._patch.setattr(patcher, "offload_device", CPU)

    def _total(self, dev=None, torch_total_too=False):
        return (64 * 10**9,) * 2 if torch_total_too else 64 * 10**9

    def _free(self, dev=None, torch_free_too=False):
        free = 64 * 10**9 if self.free is None or dev == CPU else self.free
        return (free, free) if torch_free_too else free
