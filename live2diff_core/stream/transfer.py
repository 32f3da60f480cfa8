"""Tensors between the CPU and the device, without waiting for the work that is queued there.

A copy between a CUDA device and pinned memory is queued like any other work. Other devices copy at
once: on them, a copy that does not wait is not safe (Apple), or there is nothing to wait for.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to `device`; a tensor that is already there is returned itself.

    The caller may change or free the tensor as soon as this returns.
    """
    queued = tensor.device.type == "cpu" and _queues_copies(device)
    # The host allocator of torch keeps a pinned block until its copies are done.
    return pinned_for(tensor, device).to(device, non_blocking=queued)


def pinned_for(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU in pinned memory, if copies to `device` need that not to wait."""
    return tensor.pin_memory() if tensor.device.type == "cpu" and _queues_copies(device) else tensor


class HostCopy:
    """A tensor on its way to the CPU; may be shared by threads.

    Args:
        tensor: on any device; must not be changed in place afterwards.
        finite: 0-d bool on the same device, whether all values that `tensor` was made from are
            finite; None if that is not known. It comes with the tensor, at no wait of its own.
    """

    def __init__(self, tensor: Tensor, finite: Tensor | None = None) -> None:
        """Start the copy."""
        parts = [tensor] if finite is None else [tensor, finite]
        self._lock = threading.Lock()
        self._event: torch.cuda.Event | None = None
        if not _queues_copies(tensor.device):
            self._parts = [part.to("cpu") for part in parts]
            return
        self._parts = [_pinned_copy(part) for part in parts]
        # A waiting thread sleeps (blocking), rather than taking time from the one that queues work.
        self._event = torch.cuda.Event(blocking=True)
        self._event.record(torch.cuda.current_stream(tensor.device))

    def get(self) -> Tensor:
        """Wait for the copy and return it; always the same tensor, in ordinary memory."""
        return self._arrived()[0]

    @property
    def finite(self) -> bool:
        """Whether all values are finite as far as known; waits as `get` does."""
        _, *finite = self._arrived()
        return all(bool(flag.numpy()) for flag in finite)

    def _arrived(self) -> list[Tensor]:
        with self._lock:
            if self._event is not None:
                self._event.synchronize()
                # Pinned memory is scarce, so none of it outlives the transfer.
                self._parts = [part.clone() for part in self._parts]
                self._event = None
            return self._parts


def _queues_copies(device: torch.device) -> bool:
    """Return whether copies can be queued; pretended devices (FakeTensorMode) cannot."""
    return device.type == "cuda" and torch.cuda.is_available()


def _pinned_copy(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
