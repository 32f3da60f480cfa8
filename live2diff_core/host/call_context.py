"""The context of a UNet call, passed in `transformer_options` to the memories' hooks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..stream.call_plan import CallPlan, Pass

KEY = "live2diff"
PASSES = "live2diff_passes"


@dataclass(frozen=True)
class CallContext:
    """One model call, as the UNet's hooks see it.

    Attributes:
        plan: the engine's CallPlan.
        conditioning: indices of the host's conditionings, by uuid.
        offsets: (y, x) of conditionings that cover a part of the picture, by uuid.
        passes: number of times that each conditioning has run in this call.
    """

    plan: CallPlan
    conditioning: Mapping[Any, int]
    offsets: Mapping[Any, tuple[int, int]]
    passes: Counter = field(default_factory=Counter)

    def next_passes(self, uuids: Sequence[Any]) -> list[Pass]:
        """Count and return the passes of a forward pass of these conditionings.

        Guidance such as PAG runs a conditioning again, on a changed UNet: such a pass must neither
        read nor overwrite the caches of the first one.
        """
        self.passes.update(uuids)
        return [Pass(self.conditioning[uuid], self.passes[uuid] - 1) for uuid in uuids]


def count_passes(executor: Any, *args: Any, **kwargs: Any) -> Any:
    """Store the passes of a forward pass in its options (a DIFFUSION_MODEL wrapper)."""
    # UNetModel.forward passes the options as its sixth argument.
    options = kwargs.get("transformer_options") or args[5]
    options[PASSES] = options[KEY].next_passes(options["uuids"])
    return executor(*args, **kwargs)


def call_context(transformer_options: Mapping[str, Any], node: str) -> CallContext:
    """Find the call's CallContext.

    Args:
        transformer_options: the host's.
        node: title of the node that put the calling hook on the MODEL, for the message.

    Raises:
        RuntimeError: there is none, because the model does not run in a stream.
    """
    context = transformer_options.get(KEY)
    if context is None:
        raise RuntimeError(
            f"This MODEL comes from '{node}' and needs its stream's memory, which this sampler "
            "does not have. Sample it with 'Stream Sampler', 'Stream Video' or 'Stream Step' "
            f"(category Live2Diff), or connect the MODEL from before '{node}'."
        )
    return context
