"""A checksum of a stream's state: one changed bit anywhere in it is noticed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import torch
from torch import Tensor


def checksum(settings: str, tensors: Mapping[str, Tensor]) -> str:
    """Compute the CRC-32 of a state: of the settings, and of each tensor's name, kind and bytes.

    It works at more than a gigabyte per second, while other threads go on.

    Args:
        settings: the identity of the stream, as it is written.
        tensors: contiguous, on the CPU, by name; their order is of no account.
    """
    value = zlib.crc32(settings.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), value)
        if tensor.numel():
            value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return f"{value:08x}"
