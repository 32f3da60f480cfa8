"""Permissions that hold for the tests, too, where root runs them."""

import ctypes
import os
import struct
import sys
from contextlib import contextmanager

import pytest

# Linux: version 3 of the capabilities' structures; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.
_VERSION, _OVERRIDES = 0x20080522, 1 << 1 | 1 << 2


@contextmanager
def permissions_hold():
    """Take from root, for the calling thread, the right to read and write everything."""
    if os.name != "posix" or (os.geteuid() == 0 and not sys.platform.startswith("linux")):
        pytest.skip("permissions cannot be taken away here")
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = ctypes.create_string_buffer(struct.pack("Ii", _VERSION, 0))
    data = ctypes.create_string_buffer(24)
    assert libc.capget(header, data) == 0
    effective, *others = struct.unpack("6I", data.raw)
    libc.capset(header, struct.pack("6I", effective & ~_OVERRIDES, *others))
    try:
        yield
    finally:
        libc.capset(header, struct.pack("6I", effective, *others))
