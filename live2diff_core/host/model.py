"""ComfyUI's model behind a plain callable, for streams that call it once per frame.

Follows the order of the host's own `CFGGuider`: everything is prepared and loaded once, when the
model is opened, and restored in reverse order when it is closed, even after an exception.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import comfy.hooks
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch
from torch import Tensor

from ..stream.call_plan import CallPlan, OpenedShape
from ..stream.guidance import Guidance
from ..stream.memory import MemorySet, StreamShape, applied_memories
from ..stream.prompt_timeline import PromptTimeline
from ..stream.schedule import ConsistencySchedule
from ..stream.transfer import upload
from .call_context import KEY, CallContext, count_passes, name_conditionings
from .checks import (
    check_depth,
    check_guidance,
    check_hooks,
    check_model,
    check_texts,
    check_wrappers,
)
from .control_hints import ControlHints, FrameImages, HintFrames
from .frame_conditions import FrameConditions, has_steps, texts_on, within_steps
from .memory_need import Companion, check_memory, memory_need
from .whole_batches import run_together


class HostModel:
    """A MODEL opened for one stream: called with latents and a plan, it returns x0.

    Use it as a context manager: it loads the model on entry and releases it on exit.

    Args:
        model: ComfyUI's ModelPatcher, SD1.5, with any memories applied or none.
        positive, negative: ComfyUI conditionings; `negative` is used where the guidance says so.
        guidance: scale and mode.
        schedule: noise levels of the T steps.
        latent_size: (h, w).
        frames: frames in the stream, which batches of masks and prompts must match; None if
            unknown.
        hints: the frames that the ControlNets' images belong to; by default those of the stream.
        companions: other models ("vae", "depth"), loaded with this one and kept beside it.
        held_bytes: bytes that the stream's caches hold already, from earlier openings.
    """

    def __init__(
        self,
        model: Any,
        positive: Any,
        negative: Any,
        guidance: Guidance,
        schedule: ConsistencySchedule,
        latent_size: tuple[int, int],
        frames: int | None,
        companions: Mapping[str, Companion] | None = None,
        held_bytes: int = 0,
        hints: HintFrames | None = None,
    ) -> None:
        """Check the inputs; nothing is loaded yet."""
        check_model(model)
        check_guidance(model, guidance)
        conds = {"positive": positive, "negative": negative}
        self._model = _without_dynamic_hooks(model, conds)
        self._conds = {
            kind: comfy.sampler_helpers.convert_cond(cond) for kind, cond in conds.items()
        }
        # A negative prompt that guidance does not read must not have any other effect either.
        read = {k: c for k, c in self._conds.items() if k == "positive" or guidance.uses_negative}
        check_texts(read, model)
        self._companions = dict(companions or {})
        # They run one after another.
        work = [companion.working_bytes for companion in self._companions.values()]
        self._companion_bytes = max(work, default=0)
        # The host loads a conditioning's models together with the UNet.
        first = self._conds["positive"][0]
        first["additional_models"] = [
            *first.get("additional_models", []),
            *(companion.patcher for companion in self._companions.values()),
        ]
        self._held_bytes = held_bytes
        self._hints = ControlHints(read, hints or HintFrames(count=frames))
        self._frame_conditions = FrameConditions(read, frames)
        self._guidance = guidance
        self._schedule = schedule
        self._latent_size = latent_size
        self._stack = ExitStack()
        self.device = model.load_device

    def __enter__(self) -> HostModel:
        """Load the model and its companions, once."""
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the model and restore its hooks."""
        self._stack.close()

    def __call__(self, x: Tensor, plan: CallPlan) -> Tensor:
        """Predict x0 of every row (see `call_plan.DenoiseModel`); may be interrupted."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        self._hints.keep({row.frame for row in plan.rows})
        if not self._split_steps:
            return self._run(x, plan)
        # The host compares the timestep ranges of ControlNets with the first row only.
        return torch.cat([self._run(x[rows], part) for rows, part in plan.by_step()])

    def negative(self, x: Tensor, plan: CallPlan) -> Tensor:
        """Predict x0 of every row for the negative conditionings alone.

        The rows are at one step. The host's guidance functions do not run, because this prediction
        is the input of guidance, not its result.
        """
        exploding, sigmas, options = self._prepare(x, plan)
        conds = self._conditionings("negative", plan)
        (out,) = comfy.samplers.calc_cond_batch(self._inner, [conds], exploding, sigmas, options)
        return out

    def encode_depth(self, depth: Tensor) -> Tensor:
        """Map depth latents [F, 4, h, w] to depth features [F, C0, h, w].

        Raises:
            UnsupportedModelError: from `check_depth`.
        """
        encoder = check_depth(self._model).depth_encoder
        assert encoder is not None
        return encoder(depth.to(self.device, _compute_dtype(self._model)))

    def open_memory(self, memory: MemorySet) -> None:
        """Allocate what a stream's memories will hold."""
        dtype = _compute_dtype(self._model)
        shape = OpenedShape(self._named.sizes, self.device, dtype)
        for name, applied in applied_memories(self._model).items():
            applied.open(memory[name], shape)

    def from_latent(self, latent: Tensor) -> Tensor:
        """Scale a VAE latent, any shape, for the model: float32 on its device."""
        return self._model.model.process_latent_in(upload(latent, self.device).float())

    def to_latent(self, x0: Tensor) -> Tensor:
        """Undo `from_latent`: from the model's scale to the VAE's."""
        return self._model.model.process_latent_out(x0)

    @property
    def timelines(self) -> tuple[PromptTimeline, ...]:
        """The changes of the prompts."""
        return self._frame_conditions.timelines

    def hints_of(self, frames: Iterable[int]) -> FrameImages:
        """Return the ControlNets' images of some frames, for a later opening to continue with."""
        return self._hints.of(frames)

    @property
    def memory_bytes(self) -> int:
        """Most bytes that the stream's memories will hold; 0 for a plain MODEL."""
        steps = self._guidance.steps(len(self._schedule))
        shape = StreamShape(
            latent_size=self._latent_size,
            passes=sum(len(conds) * steps[kind] for kind, conds in self._conds.items()),
            bytes_per_value=_compute_dtype(self._model).itemsize,
        )
        return sum(memory.nbytes(shape) for memory in applied_memories(self._model).values())

    def _run(self, x: Tensor, plan: CallPlan) -> Tensor:
        """Run the rows of `plan` as one batch through the host's sampling function."""
        exploding, sigmas, options = self._prepare(x, plan)
        negative = self._conds["negative"]
        if self._guidance.uses_negative:
            negative = self._conditionings("negative", plan)
        return comfy.samplers.sampling_function(
            self._inner,
            exploding,
            sigmas,
            negative,
            self._conditionings("positive", plan),
            self._guidance.host_scale,
            model_options=options,
        )

    def _conditionings(self, kind: str, plan: CallPlan) -> list[dict]:
        """Return the conditionings of one kind for the frames of a call."""
        conds: Sequence[dict] = self._conds[kind]
        if self._split_steps:
            conds = within_steps(conds, self._schedule.sigmas[plan.rows[0].step])
        return self._frame_conditions.select(conds, [row.frame for row in plan.rows])

    def _prepare(self, x: Tensor, plan: CallPlan) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Convert a call's rows to the host's latents, sigmas and options."""
        self._hints.show([row.frame for row in plan.rows])
        context = CallContext(plan, self._named)
        options = {
            **self._options,
            "transformer_options": {**self._options["transformer_options"], KEY: context},
        }
        # The host's latents are variance-exploding: x_ve = x_vp * sqrt(sigma² + 1).
        exploding = x / self._sqrt_alpha.index_select(0, plan.steps).view(-1, 1, 1, 1)
        return exploding, self._sigmas.index_select(0, plan.steps), options

    def _open(self, stack: ExitStack) -> None:
        model, conds, device = self._model, self._conds, self.device
        comfy.samplers.preprocess_conds_hooks(conds)
        check_hooks(conds)
        options = comfy.model_patcher.create_model_options_clone(model.model_options)
        stack.callback(_restore_hooks, model, model.hook_mode, options)
        if comfy.samplers.get_total_hook_groups_in_conds(conds) <= 1:
            model.hook_mode = comfy.hooks.EnumHookMode.MinVram
        comfy.sampler_helpers.prepare_model_patcher(model, conds, options)
        comfy.samplers.filter_registered_hooks_on_conds(conds, options)
        # Hooks on conditionings may have brought some.
        check_wrappers(options["transformer_options"]["wrappers"])
        _add_wrappers(options)
        self._inner, conds, loaded = comfy.sampler_helpers.prepare_sampling(
            model, self._memory_shape(), conds, options
        )
        self._options = options
        stack.callback(self._close, loaded)
        comfy.samplers.cast_to_load_options(options, device=device, dtype=model.model_dtype())
        model.pre_run()
        like = torch.zeros(1, 4, *self._latent_size, device=device)
        processed = comfy.samplers.process_conds(self._inner, like, conds, device, like)
        self._conds = {k: [texts_on(cond, device) for cond in v] for k, v in processed.items()}
        self._hints.open(device)
        self._named = name_conditionings(self._conds, self._latent_size)
        levels = torch.tensor([self._schedule.sigmas, self._schedule.sqrt_alpha])
        self._sigmas, self._sqrt_alpha = upload(levels, device).unbind()
        options["transformer_options"]["sample_sigmas"] = self._sigmas
        self._split_steps = self._hints.partial or any(map(has_steps, self._conds.values()))

    def _close(self, loaded: list) -> None:
        self._model.cleanup()
        comfy.sampler_helpers.cleanup_models(self._conds, loaded)
        # A closed stream must not keep the host's model alive.
        del self._inner, self._options

    def _memory_shape(self) -> list[int]:
        """Return a shape for which the host reserves room for the largest batch and the caches.

        Raises:
            StreamMemoryError: the stream does not fit even if all else is unloaded.
        """
        base, applied = self._model.model, applied_memories(self._model).values()
        rows = max(len(self._schedule), *(memory.largest_group for memory in applied), 1)
        rows *= self._conditionings_together
        missing = max(0, self.memory_bytes - self._held_bytes)
        if missing:
            need = memory_need(
                self._model, self._companions, missing, [rows, 4, *self._latent_size]
            )
            check_memory(need, self.device)
        needed = missing + self._companion_bytes
        row = base.memory_required([1, 4, *self._latent_size])
        return [rows + math.ceil(needed / max(row, 1)), 4, *self._latent_size]

    @property
    def _conditionings_together(self) -> int:
        """Most conditionings that the host runs in one batch."""
        positive, negative = (len(self._conds[kind]) for kind in ("positive", "negative"))
        if self._guidance.host_scale != 1:
            return positive + negative
        return max(positive, negative) if self._guidance.uses_negative else positive


def _without_dynamic_hooks(model: Any, conds: dict[str, Any]) -> Any:
    """Return the model to run: hooks on conditionings need one that is not loaded in pieces."""
    hooked = any(comfy.sampler_helpers.cond_has_hooks(cond) for cond in conds.values())
    if hooked and model.is_dynamic():
        return model.get_non_dynamic_delegate()
    return model


def _add_wrappers(options: dict[str, Any]) -> None:
    """Add the stream's own wrappers, inside those of the MODEL's nodes."""
    kinds = comfy.patcher_extension.WrappersMP
    for kind, wrapper in (
        (kinds.DIFFUSION_MODEL, count_passes),
        (kinds.CALC_COND_BATCH, run_together),
    ):
        comfy.patcher_extension.add_wrapper_with_key(
            kind, KEY, wrapper, options, is_model_options=True
        )


def _restore_hooks(model: Any, hook_mode: Any, options: dict) -> None:
    comfy.samplers.cast_to_load_options(options, device=model.offload_device)
    model.hook_mode = hook_mode
    model.restore_hook_patches()


def _compute_dtype(model: Any) -> torch.dtype:
    """Return the dtype in which the UNet computes."""
    return model.model.manual_cast_dtype or model.model.get_dtype()
