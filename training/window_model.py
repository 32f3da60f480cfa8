"""The host's UNet with a motion module, called with whole windows.

A window of L frames is one model call of one group. In it every frame sees what it sees when it is
streamed (figure 1 of Live2Diff), so keys and values need no cache: those of the window are all.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import comfy.ldm.modules.attention as host_attention
import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import comfy.sampler_helpers
import torch
from torch import Tensor

from live2diff_core.host.call_context import KEY, CallContext, NamedConditionings, count_passes
from live2diff_core.live2diff.attention import WindowView
from live2diff_core.live2diff.memory import MotionCall
from live2diff_core.live2diff.motion_module import MotionModel
from live2diff_core.live2diff.patch import NAME, LoadedMotionModule, apply_live2diff
from live2diff_core.live2diff.stream_caches import StreamCaches
from live2diff_core.live2diff.window import AttentionWindow, WindowRow
from live2diff_core.stream.call_plan import CallPlan, PackedIntegers, Row

from .recomputing import recompute_blocks


def window_row(window: AttentionWindow) -> WindowRow:
    """Join what the first L frames of a stream see into one group: the red square of figure 1.

    In the mode `sliding` that is a whole chunk, as in `bidirectional`: the modes differ in what
    follows.
    """
    rows = [window.row(window.group(frame)) for frame in range(window.window_size)]
    places = [window.group(f).index(f) for f in range(window.window_size)]
    return WindowRow(
        query_slots=tuple(row.query_slots[at] for row, at in zip(rows, places, strict=True)),
        query_positions=tuple(
            row.query_positions[at] for row, at in zip(rows, places, strict=True)
        ),
        key_positions=tuple(row.key_positions[at] for row, at in zip(rows, places, strict=True)),
    )


class WholeWindow:
    """Stands where a stream's caches do: frame i of a window is in slot i of L, so it is all."""

    def at(self, *_: Any) -> WholeWindow:
        """Return the keys and values of any attention."""
        return self

    def update(self, keys: Tensor, values: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """Return what was computed, [R, heads, HW, L, d]; see `KVCache.update`."""
        return keys, values


class WindowModel:
    """A ModelPatcher with `motion` applied. It holds no weights of its own.

    Args:
        model: ComfyUI's ModelPatcher of SD1.5, plain.
        motion: the motion module, on the device on which the UNet will run.
        window: the mask.
        recompute: whether blocks are computed again in the backward pass, to save memory.

    Raises:
        UnsupportedModelError, ValueError: from `apply_live2diff`.
    """

    def __init__(
        self, model: Any, motion: MotionModel, window: AttentionWindow, recompute: bool
    ) -> None:
        """Apply the motion module to a clone of `model`; nothing is loaded yet."""
        device = model.load_device
        patcher = comfy.model_patcher.CoreModelPatcher(
            motion, load_device=device, offload_device=device
        )
        loaded = LoadedMotionModule("the motion module in training", motion.layout, patcher)
        self._patched = apply_live2diff(model, loaded, window)
        if self._patched.is_dynamic():
            self._patched = self._patched.get_non_dynamic_delegate()
        self._patched.set_model_attn2_patch(_frames_together)
        self._patched.set_model_attn2_output_patch(self._frames_apart)
        if recompute:
            recompute_blocks(self._patched)
        self._motion, self._window, self._device = motion, window, device
        self._row = window_row(window)
        self._views: dict[int, WindowView] = {}
        self._uuid = uuid.uuid4()
        self._base = self._patched.model
        self._base.requires_grad_(False)
        sampling = self._patched.get_model_object("model_sampling")
        self.sigmas = sampling.sigmas.float().to(device)
        self._options = self._make_options()

    @property
    def dtype(self) -> torch.dtype:
        """In which the UNet computes."""
        return self._base.manual_cast_dtype or self._base.get_dtype()

    def load(self) -> None:
        """Load the UNet to its device, with its noise schedule; again after other models ran."""
        comfy.model_management.load_models_gpu([self._patched], force_full_load=True)

    @contextmanager
    def wrapped(self, kind: str, wrapper: Callable[..., Any]) -> Iterator[None]:
        """Add one of the host's wrappers for a while, inside all others."""
        before = self._options
        options = comfy.model_patcher.create_model_options_clone({"transformer_options": before})
        comfy.patcher_extension.add_wrapper(kind, wrapper, options, is_model_options=True)
        self._options = options["transformer_options"]
        try:
            yield
        finally:
            self._options = before

    def __call__(self, x: Tensor, sigmas: Tensor, text: Tensor, depth: Tensor | None) -> Tensor:
        """Predict x0 of B windows.

        Args:
            x: [B, L, 4, h, w] noisy latents, variance-exploding: x0 + sigma * noise.
            sigmas: [B].
            text: [B, tokens, channels].
            depth: [B, L, 4, h, w] depth latents, or None.

        Returns:
            [B, L, 4, h, w] float32.
        """
        batch, frames = x.shape[:2]
        options = {**self._options, KEY: self._context(batch, depth)}
        out = self._base.apply_model(
            x.flatten(0, 1),
            sigmas.repeat_interleave(frames),
            c_crossattn=text,
            transformer_options=options,
        )
        return out.unflatten(0, (batch, frames))

    def _context(self, batch: int, depth: Tensor | None) -> CallContext:
        frames, view = self._window.window_size, self._view(batch)
        tables = self._motion.position_tables(self.dtype, self._device)
        # No frame was ever lost.
        lost = torch.zeros(batch, frames, dtype=torch.bool)
        call = MotionCall(cast(StreamCaches, WholeWindow()), view, tables.place(view), tables, lost)
        features = None
        if depth is not None:
            features = self._motion.flow_conv_in(depth.flatten(0, 1).to(self.dtype))
        rows = tuple(Row(frame, step) for step in range(batch) for frame in range(frames))
        steps = torch.arange(batch).repeat_interleave(frames)
        plan = CallPlan(rows, steps, features, {NAME: call})
        named = NamedConditionings({self._uuid: 0}, {self._uuid: (0, 0)}, ())
        return CallContext(plan, named)

    def _view(self, batch: int) -> WindowView:
        """Return the windows of a call: a group each, as if each were at a step of its own."""
        if batch not in self._views:
            rows, size = [self._row] * batch, self._window.window_size
            integers = torch.tensor(WindowView.integers(rows), device=self._device)
            full = all(place >= 0 for keys in self._row.key_positions for place in keys)
            shape = (batch, size, size)
            packed = PackedIntegers(integers)
            self._views[batch] = WindowView.from_integers(range(batch), shape, full, packed)
        return self._views[batch]

    def _frames_apart(self, attended: Tensor, _: Any) -> Tensor:
        """Undo `_frames_together` (an attn2_output_patch)."""
        return attended.unflatten(1, (self._window.window_size, -1)).flatten(0, 1)

    def _make_options(self) -> dict[str, Any]:
        """Collect the hooks as the host does before it samples."""
        options = comfy.model_patcher.create_model_options_clone(self._patched.model_options)
        comfy.sampler_helpers.prepare_model_patcher(self._patched, {}, options)
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        comfy.patcher_extension.add_wrapper_with_key(
            kind, KEY, count_passes, options, is_model_options=True
        )
        # The host's own choice on a CPU computes in place, which has no gradient.
        return {
            **options["transformer_options"],
            "uuids": [self._uuid],
            "cond_or_uncond": [0],
            "optimized_attention_override": _differentiable,
        }


def _frames_together(
    queries: Tensor, text: Tensor, _: Tensor, __: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Let the frames of a window share the keys and values of its text (an attn2_patch).

    Every frame has the same text: [B*L, HW, C] becomes [B, L*HW, C], where B texts come.
    """
    return queries.unflatten(0, (len(text), -1)).flatten(1, 2), text, text


def _differentiable(_: Any, *args: Any, **kwargs: Any) -> Tensor:
    """Attend by torch's own function (an optimized_attention_override)."""
    return host_attention.attention_pytorch(*args, **kwargs)
