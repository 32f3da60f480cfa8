"""Recognises prompts, masks, areas and ControlNets by content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from ..stream.prompt_track import PromptTrack
from .weights import digest, sample_weights, tensor_bytes

# What the host keeps beside a text, and what is not the same in every run.
_PASSING = ("uuid", "additional_models")
_CONTROL = "control"


def fingerprint_prompt(conds: Iterable[Sequence[Any]]) -> str:
    """Name the texts of ComfyUI conditionings, and where and how strongly they apply.

    ControlNets are left out: in a live stream they bring another picture with every frame.

    Args:
        conds: [[tensor, {...}], ...].
    """
    return digest(_conditionings(conds, (*_PASSING, _CONTROL)))


def fingerprint_conditioning(conds: Iterable[Sequence[Any]]) -> str:
    """Name all that conditionings hold, ControlNets with weights and pictures included."""
    return digest(_conditionings(conds, _PASSING))


def conditioning_layout(conds: Iterable[Sequence[Any]]) -> str:
    """Say where and when each conditioning applies: the caches are laid out by it."""
    return "; ".join(_layout(extra) for _, extra in conds)


def _layout(extra: Mapping[str, Any]) -> str:
    named = [
        f"{key} {extra[key]}" for key in ("area", "start_percent", "end_percent") if extra.get(key)
    ]
    if extra.get("set_area_to_bounds") and extra.get("mask") is not None:
        named.append(f"mask {digest([tensor_bytes(extra['mask'])])}")
    return ", ".join(named) or "all"


def _conditionings(conds: Iterable[Sequence[Any]], without: Sequence[str]) -> Iterator[bytes | str]:
    for text, extra in conds:
        yield from _values(text)
        yield from _values({key: value for key, value in extra.items() if key not in without})


def _values(value: Any) -> Iterator[bytes | str]:
    """All that a value holds; of objects nobody here knows, their kind."""
    if isinstance(value, Tensor):
        yield str(tuple(value.shape))
        # Frame by frame: a batch of control images may be as long as the video.
        yield from (tensor_bytes(part) for part in (value if value.ndim > 1 else [value]))
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield str(key)
            yield from _values(value[key])
    elif isinstance(value, PromptTrack):
        yield str(value.timeline)
        yield from _values(value.texts)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _values(part)
    elif hasattr(value, "cond_hint_original"):
        yield from _control(value)
    elif isinstance(value, (str, int, float)) or value is None:
        yield str(value)
    else:
        yield type(value).__qualname__


def _control(control: Any) -> Iterator[bytes | str]:
    """One of the host's ControlNets, and those chained before it."""
    yield type(control).__name__
    yield f"{control.strength} {control.timestep_percent_range}"
    yield str(getattr(control, "strength_type", ""))
    yield from _values(control.cond_hint_original)
    yield from _values(getattr(control, "control_weights", None))
    yield from _values(getattr(control, "extra_args", None))
    model = getattr(control, "control_model", None) or getattr(control, "t2i_model", None)
    if model is not None:
        yield sample_weights(model, "", {})
    yield from _values(control.previous_controlnet)
