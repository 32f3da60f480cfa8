"""Inputs that Stream Sampler, Stream Video and Stream Step share."""

from comfy_api.latest import io

from .types import FrameFilterType, OptionsType

MAX_SEED = 0xFFFFFFFFFFFFFFFF


def model_input() -> io.Model.Input:
    """Make the input for the MODEL."""
    return io.Model.Input(
        "model",
        tooltip="From 'Apply Live2Diff', 'Apply Feature Bank' or both, or a plain SD1.5 MODEL.",
    )


def prompt_inputs() -> list:
    """Make the inputs for the prompts."""
    return [
        io.Conditioning.Input("positive", tooltip="What the video should become."),
        io.Conditioning.Input(
            "negative",
            tooltip="What it should not be. Used only when cfg is not 1, and not by the guidance "
            "modes 'none' and 'self' of 'Stream Options'.",
        ),
    ]


def sampling_inputs(fixed_seed: bool = False) -> list:
    """Make the inputs for seed, steps, denoise and cfg.

    Args:
        fixed_seed: leave out the control that changes the seed after each run, for live streams.
    """
    return [
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=not fixed_seed,
            tooltip="Noise of every frame and step follows from it, whatever the batch. A live "
            "stream starts over with a new one.",
        ),
        io.Int.Input(
            "steps",
            default=4,
            min=1,
            max=50,
            tooltip="Steps of the whole schedule; denoise picks the last of them.",
        ),
        io.Float.Input(
            "denoise",
            default=0.5,
            min=0.01,
            max=1.0,
            step=0.01,
            tooltip="How far the video may change. steps x denoise steps, rounded down, are run: "
            "4 x 0.5 gives 2, the paper's setting; 8 at most. Live, one more is one frame more of "
            "delay.",
        ),
        io.Float.Input(
            "cfg",
            default=1.0,
            min=0.0,
            max=30.0,
            step=0.1,
            tooltip="Guidance. 1 (for LCM) is fastest; more doubles time and cache, unless "
            "'Stream Options' says otherwise.",
        ),
    ]


def sigmas_input() -> io.Sigmas.Input:
    """Make the optional input for noise levels, which replace steps and denoise."""
    return io.Sigmas.Input(
        "sigmas",
        optional=True,
        tooltip="Noise levels to use in place of steps and denoise, from any core scheduler given "
        "the same MODEL as this node.",
    )


def option_inputs() -> list:
    """Make the optional inputs for options and filter, which come from their own nodes."""
    return [
        OptionsType.Input(
            "options",
            optional=True,
            tooltip="From 'Stream Options': guidance, noise and steps otherwise than in Live2Diff.",
        ),
        FrameFilterType.Input(
            "frame_filter",
            optional=True,
            tooltip="From 'Similar-Frame Filter': skip frames that look like the last one.",
        ),
    ]
