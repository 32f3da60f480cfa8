"""A CUDA device that only pretends: shapes, types and devices are computed, no numbers.

It needs no GPU. `.item()`, `.tolist()`, `.numpy()`, `bool()`, boolean indexing and tensors of two
devices in one operation raise, as the data would have to be waited for or moved. Beyond that it
lists what CUDA accepts but waits for.
"""

import sys
from contextlib import ExitStack
from unittest.mock import MagicMock, patch

import torch
from code_place import place_of
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

CUDA = torch.device("cuda", 0)
PINNING = {"pin_memory", "_pin_memory"}


class PretendedCuda:
    """A context in which tensors pretend.

    Attributes:
        waits: copies between devices that were not asked to be `non_blocking`, and CUDA tensors
            that were indexed by tensors of the CPU, in words.
    """

    def __init__(self):
        self.waits = []
        self._stack = ExitStack()

    def __enter__(self):
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            fake = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(_Bus(fake, self.waits))
            for name in [n for n in sys.modules if n.endswith("live2diff_core.stream.transfer")]:
                _pretend_to_pin(stack, sys.modules[name])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        self._stack.close()


def _pretend_to_pin(stack, transfer):
    """Let a module `stream.transfer` go the way that it goes where there is a GPU."""

    def copy(tensor):
        return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor, non_blocking=True)

    there = patch.object(transfer, "_queues_copies", lambda device: device.type == "cuda")
    pinned = patch.object(transfer, "_pinned_copy", copy)
    # Real tensors, too: the noise is drawn on a thread on which nothing pretends.
    pinning = patch.object(torch.Tensor, "pin_memory", lambda tensor: tensor)
    events = patch.multiple(torch.cuda, Event=MagicMock(), current_stream=MagicMock())
    for each in (there, pinned, pinning, events):
        stack.enter_context(each)


class _Bus(TorchDispatchMode):
    """Watches what passes between the devices."""

    def __init__(self, fake, waits):
        super().__init__()
        self._fake, self._waits = fake, waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        # Real are those from other threads, where nothing pretends.
        args, kwargs = tree_map_only(torch.Tensor, self._pretend, (args, kwargs or {}))
        name = func.overloadpacket.__name__
        if name in PINNING:
            # Fake tensors cannot be pinned.
            return args[0]
        if name == "is_pinned":
            return True
        out = func(*args, **kwargs)
        if isinstance(out, FakeTensor):
            # Single numbers would be computed for real, on a device that is not there.
            out.constant = None
        if _moves(name, args, out) and not _argument(func, "non_blocking", args, kwargs):
            self._note(func, "copies between devices without non_blocking")
        if name.startswith("index") and args[0].is_cuda and _indexed_by_cpu(args):
            self._note(func, "is indexed by a tensor of the CPU")
        return out

    def _pretend(self, tensor):
        return tensor if isinstance(tensor, FakeTensor) else self._fake.from_tensor(tensor)

    def _note(self, func, what):
        self._waits.append(f"{func} {what} at {place_of(sys._getframe(2))}")


def _moves(name, args, out):
    """Tell whether an operation copies a tensor to another device."""
    if name == "copy_":
        return args[0].device != args[1].device
    if not (name.startswith(("to", "_to_copy")) and isinstance(out, torch.Tensor)):
        return False
    return args[0].device != out.device


def _indexed_by_cpu(args):
    # A single number of the CPU is handed over with the kernel.
    indices = args[1] if isinstance(args[1], list | tuple) else ()
    return any(isinstance(i, torch.Tensor) and not i.is_cuda and i.ndim for i in indices)


def _argument(func, name, args, kwargs):
    """Find an argument of an operation by its name."""
    if name in kwargs:
        return kwargs[name]
    for index, argument in enumerate(func._schema.arguments):
        if argument.name == name:
            return args[index] if index < len(args) else argument.default_value
    return None
