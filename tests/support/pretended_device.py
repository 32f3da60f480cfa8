"""A second device without the hardware: numbers are real, and mixing devices raises.

Tensors on it are stored on the CPU, but say that they are elsewhere. As on Apple's GPUs, float64 is
refused, and so is every operation on tensors of two devices, apart from copies.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

# A device type that every build of torch can index, and whose tensors have no numbers otherwise.
AWAY = torch.device("meta")
_COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Away(torch.Tensor):
    """A tensor on the pretended device; `held` is the real one."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=AWAY
        )

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class PretendedDevice(TorchDispatchMode):
    """within it, `.to(AWAY)` and `device=AWAY` reach the pretended device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    if func is torch.ops.aten._has_compatible_shallow_copy_type.default:
        return False
    tensors = []
    tree_map(lambda x: tensors.append(x) if isinstance(x, torch.Tensor) else None, (args, kwargs))
    away = [t for t in tensors if isinstance(t, Away)]
    # A number in a tensor without dimensions may be on the CPU.
    here = [t for t in tensors if not isinstance(t, Away) and t.dim()]
    if away and here and func not in _COPIES:
        raise RuntimeError(f"Expected all tensors to be on the same device, in {func}.")
    target = kwargs.get("device")
    lands_away = bool(away) if target is None else torch.device(target).type == AWAY.type
    if target is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    wrapped = {id(t.held): t for t in away}
    real_args, real_kwargs = tree_map(
        lambda x: x.held if isinstance(x, Away) else x, (args, kwargs)
    )
    result = func(*real_args, **real_kwargs)

    def wrap(value):
        if not isinstance(value, torch.Tensor) or not lands_away:
            return value
        if value.dtype == torch.float64:
            raise TypeError("Cannot convert to float64: the MPS framework does not support it.")
        # In-place operations return their own argument.
        return wrapped.get(id(value)) or Away(value)

    if func is torch.ops.aten.copy_.default:
        return args[0]
    return tree_map(wrap, result)
