"""Conditionings that always run together.

The host runs the conditionings of a call in one batch, or in several when memory happens to be
short. Matrix products round differently in batches of another size; so frames, and a resumed
stream, would depend on what else is on the device.
"""

from __future__ import annotations

import math
from typing import Any


class WholeBatches:
    """The host's BaseModel for one call, which says that it needs no memory, whatever the batch.

    `HostModel` has the host make room for the whole batch when it loads the models.
    """

    def __init__(self, model: Any) -> None:
        """Stand in for `model`, the host's BaseModel."""
        self._model = model

    def memory_required(self, *_: Any, **__: Any) -> float:
        """Return fewer bytes than any device has free."""
        return -math.inf

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else."""
        return getattr(self._model, name)


def run_together(executor: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
    """Run all conditionings of the same size in one batch (a CALC_COND_BATCH wrapper)."""
    return executor(WholeBatches(model), *args, **kwargs)
