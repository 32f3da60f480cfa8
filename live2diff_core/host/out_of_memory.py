"""Work that may be left undone where the device has no memory for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import comfy.model_management

T = TypeVar("T")


def unless_short(compute: Callable[[], T]) -> T | None:
    """Return what `compute` makes; None if the device runs out of memory over it."""
    try:
        return compute()
    except Exception as error:
        if not comfy.model_management.is_oom(error):
            raise
    # Behind the handler, because the error holds the tensors of the failed try.
    comfy.model_management.soft_empty_cache()
    return None
