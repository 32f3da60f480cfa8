"""A second device without the hardware: numbers are real, and mixing devices raises.

Tensors on it are stored on the CPU, but say that they are elsewhere. As on Apple's GPUs, float64 is
refused, and so is every operation on tensors of two devices, apart from copies.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# A device type that every build of torch can index, and whose tensors have no numbers otherwise.
AWAY = torch.device("meta")
_CPU = torch.device("cpu")
_ATEN = torch.ops.aten
# Operations with arguments on two devices; the results of the last two land on the second one.
_COPIES = (_ATEN._to_copy.default, _ATEN.copy_.default, _ATEN.type_as.default, _ATEN.to.other)


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

    # Torch would make an index of lists on the device itself, without numbers.

    def __getitem__(self, index):
        return super().__getitem__(_index(index))

    def __setitem__(self, index, value):
        super().__setitem__(_index(index), value)

    def tolist(self):
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _TensorFromData(TorchFunctionMode):
    """Makes `torch.tensor(..., device=AWAY)` by way of the CPU; torch itself drops the numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        made = func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None
        if made and torch.device(kwargs["device"]).type == AWAY.type:
            return func(*args, **{**kwargs, "device": _CPU}).to(AWAY)
        return func(*args, **kwargs)


class PretendedDevice(TorchDispatchMode):
    """Within it, `.to(AWAY)` and `device=AWAY` reach the pretended device."""

    def __enter__(self):
        self._from_data = _TensorFromData()
        self._from_data.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._from_data.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


def _run(func, args, kwargs):
    if func is _ATEN._has_compatible_shallow_copy_type.default:
        return False
    leaves = tree_leaves((args, kwargs))
    away = [x for x in leaves if isinstance(x, Away)]
    _refuse_two_devices(func, leaves, away)
    lands_away = _lands_away(func, args, leaves, away)
    real_args, real_kwargs = tree_map(_real, (args, kwargs))
    result = func(*real_args, **real_kwargs)
    if func is _ATEN.copy_.default:
        return args[0]
    # In-place operations return their own argument.
    known = {id(x.held): x for x in away}
    return tree_map(lambda x: _wrap(x, known), result) if lands_away else result


def _refuse_two_devices(func, leaves, away):
    # A number in a tensor without dimensions may be on the CPU.
    here = [
        x for x in leaves if isinstance(x, torch.Tensor) and not isinstance(x, Away) and x.dim()
    ]
    if away and here and func not in _COPIES:
        raise RuntimeError(f"Expected all tensors to be on the same device, in {func}.")


def _lands_away(func, args, leaves, away):
    if func in _COPIES[2:]:
        return isinstance(args[1], Away)
    named = [x for x in leaves if isinstance(x, torch.device)]
    return named[0].type == AWAY.type if named else bool(away)


def _index(index):
    return Away(torch.tensor(index)) if isinstance(index, list) else index


def _real(value):
    if isinstance(value, Away):
        return value.held
    return _CPU if isinstance(value, torch.device) else value


def _wrap(value, known):
    if not isinstance(value, torch.Tensor):
        return value
    if value.dtype == torch.float64:
        raise TypeError("Cannot convert to float64: this device does not support it.")
    return known[id(value)] if id(value) in known else Away(value)
