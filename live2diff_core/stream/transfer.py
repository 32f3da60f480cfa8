"""Tensors between the CPU and the device, without waiting for the work that is queued there.

A copy between a CUDA device and pinned memory is queued like any other work. Other devices copy at
once: on them, a copy that does not wait is not safe (Apple), or there is nothing to wait for.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from .faults import DECODE, NONE


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


# Makes a picture again: it, or None where it is not finite either.
Again = Callable[[], "Tensor | None"]


class HostCopy:
    """A tensor on its way to the CPU; may be shared by threads.

    Args:
        tensor: on any device; must not be changed in place afterwards.
        finite: 0-d bool on the same device, whether all values that `tensor` was made from are
            finite; None if that is not known. It comes with the tensor, at no wait of its own.
        fault: where the frame was lost before `tensor` was made of another one (see `faults`), on
            the same device; None if that is not known.
        again: tried once where `tensor` is not finite, by the thread that waits for it.
        before: what takes its place where that fails; where there is none, zeros do.
    """

    def __init__(
        self,
        tensor: Tensor,
        finite: Tensor | None = None,
        fault: Tensor | None = None,
        again: Again | None = None,
        before: HostCopy | None = None,
    ) -> None:
        """Start the copy."""
        flags = {"finite": finite, "fault": fault}
        self._flags = [name for name, flag in flags.items() if flag is not None]
        parts = [tensor, *(flag for flag in flags.values() if flag is not None)]
        self._again, self._before, self._repaired = again, before, False
        self._settled = finite is None or again is None
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
        return self._repaired or bool(self._flag("finite", 1))

    @property
    def repaired(self) -> bool:
        """Whether the tensor was not finite, and making it again helped; waits as `get` does."""
        self._arrived()
        return self._repaired

    @property
    def fault(self) -> int:
        """Where the frame was lost (see `faults`), as far as known; waits as `get` does."""
        return int(self._flag("fault", NONE)) or (NONE if self.finite else DECODE)

    def _flag(self, name: str, unknown: int) -> int:
        parts = self._arrived()
        return _byte(parts[1 + self._flags.index(name)]) if name in self._flags else unknown

    def _arrived(self) -> list[Tensor]:
        with self._lock:
            if self._event is not None:
                self._event.synchronize()
                # Pinned memory is scarce, so none of it outlives the transfer.
                self._parts = [part.clone() for part in self._parts]
                self._event = None
            if not self._settled:
                self._settle()
            return self._parts

    def _settle(self) -> None:
        """Replace a tensor that is not finite; once."""
        self._settled = True
        again, before, self._again, self._before = self._again, self._before, None, None
        if _byte(self._parts[1]):
            return
        assert again is not None
        found = again()
        self._repaired = found is not None
        if found is None and before is not None:
            found = before.get()
        self._parts[0] = torch.zeros_like(self._parts[0]) if found is None else found


def _queues_copies(device: torch.device) -> bool:
    """Return whether copies can be queued; pretended devices (FakeTensorMode) cannot."""
    return device.type == "cuda" and torch.cuda.is_available()


def _byte(flag: Tensor) -> int:
    """Read a 0-d bool or uint8 of the CPU.

    By its address, because all of torch's own ways are operations, and a steady frame must not do
    others in one thread or another, whichever comes first.
    """
    return ctypes.c_uint8.from_address(flag.data_ptr()).value


def _pinned_copy(tensor: Tensor) -> Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
