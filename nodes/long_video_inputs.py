"""Inputs that Long Video From Text and Extend Video share, and some of Enhance Video."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..live2diff_core.run.picture_stream import StepReport
from ..live2diff_core.streamingt2v.limits import LARGEST, MOST_STEPS, SIDE_STEP, SMALLEST
from .stream_inputs import MAX_SEED
from .types import T2VModelType

# Frames of a segment: two chunks. A state is small, so each segment has one.
CHECKPOINT_EVERY, SAVE_MINUTES = 16, 0.0


def model_inputs() -> list:
    """Make the inputs for the models and texts."""
    return [
        T2VModelType.Input("model", tooltip="From Load StreamingT2V."),
        vae_input(),
        io.Conditioning.Input(
            "positive",
            tooltip="What the video shows, from the CLIP of Load StreamingT2V. With Prompt "
            "Schedule, other words from a frame on; they count from the next chunk of 8 frames.",
        ),
        io.Conditioning.Input("negative", tooltip="What it should not show; may be empty."),
    ]


def sampling_inputs() -> list:
    """Make the inputs for size, steps and guidance."""
    return [
        _side("width"),
        _side("height"),
        seed_input("All noise follows from it."),
        io.Int.Input(
            "steps", default=50, min=1, max=MOST_STEPS, tooltip="Denoising steps of a chunk."
        ),
        guidance_input("text_guidance", "Weight of the prompt against the negative prompt."),
        guidance_input(
            "anchor_guidance",
            "Weight of the look of the anchor, the frame that all chunks are to resemble. "
            "Other than text_guidance, it makes every step half as long again.",
        ),
        io.Float.Input(
            "eta",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip="Noise that is added in each step, behind the first chunk: 1 as published, 0 "
            "none.",
        ),
    ]


def vae_input() -> io.Vae.Input:
    """Make the input for the VAE."""
    return io.Vae.Input("vae", tooltip="From Load StreamingT2V, or any VAE of SD1.5 or SD2.")


def seed_input(tooltip: str) -> io.Int.Input:
    """Make the input for the seed."""
    return io.Int.Input(
        "seed", default=0, min=0, max=MAX_SEED, control_after_generate=True, tooltip=tooltip
    )


def guidance_input(name: str, tooltip: str) -> io.Float.Input:
    """Make the input for a guidance weight."""
    return io.Float.Input(name, default=7.5, min=0.0, max=30.0, step=0.1, tooltip=tooltip)


def _side(name: str) -> io.Int.Input:
    return io.Int.Input(
        name,
        default=256,
        min=SMALLEST,
        max=LARGEST,
        step=SIDE_STEP,
        tooltip="A multiple of 64. The model was trained at 256x256.",
    )


def make_spec(
    text_guidance: float, anchor_guidance: float, anchor_of_scene: bool = False, **inputs: object
) -> Any:
    """Make the `LongVideoSpec` of these inputs.

    Raises:
        ValueError: a setting is out of range, or of another model.
    """
    # Here, because it imports diffusers, which takes seconds.
    from ..live2diff_core.streamingt2v.sampling import T2VGuidance
    from ..live2diff_core.streamingt2v.spec import LongVideoSpec

    guidance = T2VGuidance(text_guidance, anchor_guidance)
    return LongVideoSpec(
        guidance=guidance, anchor_of_scene=anchor_of_scene, report=StepReport(), **inputs
    )
