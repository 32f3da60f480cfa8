"""The context of a UNet call, passed in `transformer_options` to the memories' hooks."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..stream.call_plan import CallPlan, Pass

KEY = "live2diff"
PASSES = "live2diff_passes"


@dataclass(frozen=True)
class NamedConditionings:
    """The host's conditionings, told apart by the uuids that they carry through its functions.

    Attributes:
        indices: places among all conditionings, by uuid.
        offsets: (y, x) of the parts of the picture that they cover, by uuid.
        sizes: names, the same in every run, and sizes (h, w) of the parts, in order.
    """

    indices: Mapping[Any, int]
    offsets: Mapping[Any, tuple[int, int]]
    sizes: tuple[tuple[str, tuple[int, int]], ...]


def name_conditionings(
    conds: Mapping[str, Sequence[dict]], latent_size: tuple[int, int]
) -> NamedConditionings:
    """Name processed conditionings, and give each a uuid of its own.

    Args:
        conds: the host's conditionings by kind; their uuids are replaced.
        latent_size: (h, w) of whole latents.
    """
    every = [(f"{kind}.{n}", cond) for kind, cs in conds.items() for n, cond in enumerate(cs)]
    for _, cond in every:
        # The host copies conditionings to fill areas, including their uuid.
        cond["uuid"] = uuid.uuid4()
    areas = [_area(cond, latent_size) for _, cond in every]
    return NamedConditionings(
        indices={cond["uuid"]: index for index, (_, cond) in enumerate(every)},
        offsets={cond["uuid"]: area[1] for (_, cond), area in zip(every, areas, strict=True)},
        sizes=tuple((name, area[0]) for (name, _), area in zip(every, areas, strict=True)),
    )


def _area(
    cond: Mapping[str, Any], whole: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return size and offset, (h, w) and (y, x), of the part that a conditioning covers."""
    if cond.get("area") is None:
        return whole, (0, 0)
    height, width, y, x = cond["area"]
    return (min(height, whole[0] - y), min(width, whole[1] - x)), (y, x)


@dataclass(frozen=True)
class CallContext:
    """One model call, as the UNet's hooks see it.

    Attributes:
        plan: the engine's CallPlan.
        conditionings: those of the opened model.
        passes: number of times that each conditioning has run in this call.
    """

    plan: CallPlan
    conditionings: NamedConditionings
    passes: Counter = field(default_factory=Counter)

    def next_passes(self, uuids: Sequence[Any]) -> list[Pass]:
        """Count and return the passes of a forward pass of these conditionings.

        Guidance such as PAG runs a conditioning again, on a changed UNet: such a pass must neither
        read nor overwrite the caches of the first one.
        """
        self.passes.update(uuids)
        return [Pass(self.conditionings.indices[u], self.passes[u] - 1) for u in uuids]


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
