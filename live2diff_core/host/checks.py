"""Checks that refuse a run before anything is loaded: sampling, wrappers, hooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import comfy.hooks
import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension

from ..stream.guidance import Guidance, GuidanceMode
from ..stream.memory import AppliedMemory, applied_memories
from .sd15 import UnsupportedModelError, sd15_unet

_KINDS = comfy.patcher_extension.WrappersMP
# The host runs these in its guider and its samplers, whose place a stream takes.
_SAMPLER_WRAPPERS = (_KINDS.OUTER_SAMPLE, _KINDS.SAMPLER_SAMPLE, _KINDS.PREDICT_NOISE)
# Nodes by the keys of their wrappers.
_NODES = {
    "easycache": "EasyCache",
    "lazycache": "LazyCache",
    "ContextWindows_sampler_sample": "Context Windows",
}


def check_model(model: Any) -> None:
    """Refuse a MODEL that no stream can run; nothing is loaded.

    Raises:
        UnsupportedModelError: it is not SD1.5, its sampling was replaced, or a node on it changes
            the sampling as a whole.
    """
    sd15_unet(model)
    check_sampling(model)
    if "context_handler" in model.model_options:
        _refuse_node("Context Windows")
    check_wrappers(model.wrappers)
    check_wrappers(model.model_options["transformer_options"].get("wrappers", {}))


def check_wrappers(wrappers: Mapping[str, Mapping[Any, Sequence[Any]]]) -> None:
    """Refuse the host's wrappers around what its samplers do, and a stream does not.

    Args:
        wrappers: the host's wrappers by kind and key.

    Raises:
        UnsupportedModelError: there is such a wrapper; the message names its node.
    """
    for kind in _SAMPLER_WRAPPERS:
        for key, found in wrappers.get(kind, {}).items():
            if found:
                _refuse_node(_NODES.get(key) or key or _maker(found[0]))


def _maker(wrapper: Any) -> str:
    """Name the function or class that a wrapper without a key comes from."""
    return str(getattr(wrapper, "__qualname__", type(wrapper).__qualname__)).split(".")[0]


def _refuse_node(name: str) -> NoReturn:
    raise UnsupportedModelError(
        f"'{name}' on this MODEL changes the sampling of a whole clip, step after step; a stream "
        "runs all steps at once, frame by frame, where it has no effect or half of one. Remove "
        "that node, or connect the MODEL from before it."
    )


def check_sampling(model: Any) -> None:
    """Refuse a MODEL whose sampling was replaced by one that a stream cannot use.

    Raises:
        UnsupportedModelError: a memory cannot work with it, or the model applies consistency
            scalings that the Stream Sampler applies too.
    """
    for memory in applied_memories(model).values():
        memory.check(model)
    sampling = model.get_model_object("model_sampling")
    plain = (comfy.model_sampling.EPS, comfy.model_sampling.V_PREDICTION)
    if type(sampling).calculate_denoised not in [kind.calculate_denoised for kind in plain]:
        raise UnsupportedModelError(
            "This MODEL's sampling was changed (ModelSamplingDiscrete with 'lcm'?). The stream "
            "nodes apply the LCM scalings themselves: connect the MODEL from before that node."
        )


def check_depth(model: Any) -> AppliedMemory:
    """Get the memory that reads depth for `model`.

    Raises:
        UnsupportedModelError: there is none.
    """
    applied = applied_memories(model).values()
    for memory in applied:
        if memory.depth_encoder is not None:
            return memory
    titles = " and ".join(f"'{memory.title}'" for memory in applied)
    raise UnsupportedModelError(
        "depth is connected, but this MODEL cannot read it"
        + (f" (it comes from {titles}). " if titles else ". ")
        + "Put 'Apply Live2Diff' with live2diff.ckpt before this node (AnimateDiff's motion "
        "modules have no depth encoder), or disconnect depth."
    )


def check_guidance(model: Any, guidance: Guidance) -> None:
    """Refuse guidance nodes that run the negative prompt where the stream keeps no memory for it.

    Raises:
        UnsupportedModelError: there is such a node, and the guidance is not `full`.
    """
    needs_negative = model.model_options.get("disable_cfg1_optimization", False)
    if needs_negative and guidance.active is not GuidanceMode.FULL:
        raise UnsupportedModelError(
            "A guidance node on this MODEL needs the negative prompt at every step "
            "(Self-Attention Guidance does). Set cfg to something else than 1 and the guidance in "
            "'Stream Options' to 'full', or remove that node."
        )


def check_texts(conds: Mapping[str, Sequence[Mapping[str, Any]]], model: Any) -> None:
    """Refuse prompts that this model cannot read.

    Raises:
        UnsupportedModelError: a prompt is empty, or was encoded for another kind of model.
    """
    width = model.model.model_config.unet_config["context_dim"]
    for kind, parts in conds.items():
        if not parts:
            raise UnsupportedModelError(f"The {kind} prompt is empty: connect a CLIP Text Encode.")
        for text in (part["cross_attn"] for part in parts):
            if text.shape[-1] != width:
                raise UnsupportedModelError(
                    f"The {kind} prompt has {text.shape[-1]} channels, but this MODEL reads "
                    f"{width}: it was encoded with another model's CLIP. Use the CLIP of an SD1.5 "
                    "checkpoint."
                )


def check_hooks(conds: dict[str, list[dict]]) -> None:
    """Refuse hooks whose strength changes over the denoising steps.

    The host goes through their keyframes once, in the order of its calls; in a stream every call
    covers several steps.

    Raises:
        UnsupportedModelError: a hook with more than one keyframe.
    """
    for cond in (cond for kind in conds.values() for cond in kind):
        hooks = cond["hooks"].hooks if cond.get("hooks") is not None else []
        if any(len(hook.hook_keyframe.keyframes) > 1 for hook in hooks):
            raise UnsupportedModelError(
                "A conditioning carries hooks with keyframes, which change over the denoising "
                "steps; a stream runs all steps at once. Remove the hook keyframes."
            )
