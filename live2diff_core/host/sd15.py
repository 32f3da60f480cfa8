"""The MODELs that a stream can run, and their noise levels."""

from __future__ import annotations

from typing import Any

import comfy.model_sampling
import comfy.supported_models
from torch import Tensor

from ..stream.schedule import ConsistencySchedule, StepRule


class UnsupportedModelError(ValueError):
    """A MODEL, VAE or prompt that a stream cannot use, or not with this memory."""


def sd15_unet(model: Any) -> Any:
    """Return the UNet of an SD1.5 ModelPatcher.

    Raises:
        UnsupportedModelError: the model is of any other kind.
    """
    base = model.model
    kind = type(base.model_config).__name__
    if type(base.model_config) is not comfy.supported_models.SD15:
        raise UnsupportedModelError(
            f"This MODEL is {kind}, but this pack is for SD1.5 only. Load an SD1.5 checkpoint (any "
            "DreamBooth or merge of it, with any SD1.5 LoRA)."
        )
    unet = base.diffusion_model
    channels = unet.input_blocks[0][0].weight.shape[1]
    if channels != 4:
        raise UnsupportedModelError(
            f"This SD1.5 MODEL takes {channels} input channels (an inpainting or similar variant); "
            "streams need a plain one with 4."
        )
    return unet


class LinearBetaSampling(comfy.model_sampling.ModelSamplingDiscrete):
    """The noise schedule motion modules are trained on: betas linear from 0.00085 to 0.012."""

    def __init__(self, model_config: Any = None) -> None:
        """Register this schedule in place of the checkpoint's own."""
        super().__init__(model_config)
        # The host calls linear betas "sqrt_linear", and those linear in the root "linear".
        self._register_schedule(
            beta_schedule="sqrt_linear", timesteps=1000, linear_start=0.00085, linear_end=0.012
        )


def linear_beta_sampling(model: Any) -> LinearBetaSampling:
    """Make the schedule for `model`, keeping its prediction type.

    That is eps, or v for some merges, as set by ModelSamplingDiscrete.

    Raises:
        UnsupportedModelError: the model predicts neither.
    """
    sampling = model.get_model_object("model_sampling")
    if isinstance(sampling, (comfy.model_sampling.X0, comfy.model_sampling.CONST)):
        raise UnsupportedModelError(
            "This MODEL's sampling was changed to one that predicts neither noise nor v "
            "(ModelSamplingDiscrete with 'x0' or 'img_to_img'?). Remove that node."
        )
    velocity = isinstance(sampling, comfy.model_sampling.V_PREDICTION)
    prediction = comfy.model_sampling.V_PREDICTION if velocity else comfy.model_sampling.EPS
    kind = type("LinearBetaSampling", (LinearBetaSampling, prediction), {})
    return kind(model.model.model_config)


def host_schedule(
    model: Any,
    steps: int,
    denoise: float,
    sigmas: Tensor | None = None,
    rule: StepRule = StepRule.LCM,
) -> ConsistencySchedule:
    """Make the schedule for a MODEL's own noise levels.

    Args:
        model: ComfyUI's ModelPatcher.
        steps, denoise: inference steps and strength; see `few_step_timesteps`.
        sigmas: [T] or [T+1] noise levels that replace them; a final 0 is dropped.
        rule: the rule that the model was distilled for.

    Raises:
        ValueError: from `ConsistencySchedule`, or `sigmas` holds nothing but zeros.
    """
    sampling = model.get_model_object("model_sampling")
    if sigmas is None:
        # The host leaves this buffer on the model's device, and Apple's GPUs have no float64.
        alphas = 1.0 / (sampling.sigmas.cpu().double() ** 2 + 1.0)
        return ConsistencySchedule.few_step(alphas, steps, denoise, rule)
    levels = sigmas.detach().float().cpu()
    if not levels.any():
        came = ", ".join(f"{level:g}" for level in levels.flatten().tolist()) or "nothing"
        raise ValueError(
            f"SIGMAS holds no noise level above 0: it is {came}. A scheduler with denoise 0 makes "
            "such, and so does Manual Sigmas, which leaves out all of its text that is no number "
            "(of 'nan, 0' it keeps the 0)."
        )
    if levels.ndim == 1 and levels[-1] == 0:
        levels = levels[:-1]
    timesteps = sampling.timestep(levels.flatten()).tolist()
    return ConsistencySchedule.from_sigmas(levels, timesteps, rule)
