"""Nodes for the options of all three stream nodes: guidance and noise, and skipped frames."""

from comfy_api.latest import io

from ..live2diff_core.run.spec import StreamOptions
from ..live2diff_core.stream.guidance import GuidanceMode
from ..live2diff_core.stream.schedule import StepRule
from ..live2diff_core.stream.similar_frames import SkipRule
from .types import CATEGORY, FrameFilterType, OptionsType

FRESH_NOISE, SHARED_NOISE = "fresh per frame", "same for all frames"


class Live2DiffStreamOptions(io.ComfyNode):
    """Makes StreamOptions."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        default = StreamOptions()
        return io.Schema(
            node_id="Live2DiffStreamOptions",
            display_name="Stream Options",
            category=CATEGORY,
            description="What StreamDiffusion and StreamV2V do otherwise than Live2Diff: guidance "
            "without a second pass, one noise for all frames, and the steps of other few-step "
            "models.",
            search_aliases=["rcfg", "residual guidance", "hyper-sd", "turbo", "shared noise"],
            inputs=[
                io.Combo.Input(
                    "guidance",
                    options=[mode.value for mode in GuidanceMode],
                    default=default.guidance_mode.value,
                    tooltip="Where cfg gets its negative from. full: a second pass. self: the "
                    "noise that each frame brought along, no extra pass (the negative prompt is "
                    "not read). initialize: one extra pass at a frame's first step. none: cfg is "
                    "not used. At cfg 1 all are the same.",
                ),
                io.Float.Input(
                    "delta",
                    default=default.delta,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="How much residual noise 'self' and 'initialize' steer away from.",
                ),
                io.Combo.Input(
                    "noise",
                    options=[FRESH_NOISE, SHARED_NOISE],
                    tooltip="Fresh for each frame (Live2Diff), or the same for all of them "
                    "(StreamDiffusion, StreamV2V): steadier where nothing moves.",
                ),
                io.Combo.Input(
                    "few_step_model",
                    options=[rule.value for rule in StepRule],
                    default=default.step_rule.value,
                    tooltip="lcm: for LCM and LCM-LoRA. x0: for Hyper-SD and other models that "
                    "were distilled to predict the finished picture (SD-Turbo's way).",
                ),
            ],
            outputs=[
                OptionsType.Output(
                    display_name="options",
                    tooltip="For Stream Sampler, Stream Video and Stream Step.",
                )
            ],
        )

    @classmethod
    def execute(cls, guidance: str, delta: float, noise: str, few_step_model: str) -> io.NodeOutput:
        """Return the inputs as StreamOptions."""
        return io.NodeOutput(
            StreamOptions(
                guidance_mode=GuidanceMode(guidance),
                delta=delta,
                shared_noise=noise == SHARED_NOISE,
                step_rule=StepRule(few_step_model),
            )
        )


class Live2DiffSimilarFrameFilter(io.ComfyNode):
    """Makes a SkipRule."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        default = SkipRule()
        return io.Schema(
            node_id="Live2DiffSimilarFrameFilter",
            display_name="Similar-Frame Filter",
            category=CATEGORY,
            description="Saves work where hardly anything moves: frames that look like the last "
            "translated one get its result again. As many frames come out as go in.",
            search_aliases=["skip frames", "similar image filter"],
            inputs=[
                io.Float.Input(
                    "threshold",
                    default=default.threshold,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Cosine similarity from which a frame may be skipped. The chance grows "
                    "from there to certainty for an equal frame; it follows from the seed and the "
                    "frame. 1 skips none.",
                ),
                io.Int.Input(
                    "most_skipped",
                    default=default.most_skipped,
                    min=0,
                    max=1000,
                    tooltip="Most frames skipped in a row.",
                ),
            ],
            outputs=[
                FrameFilterType.Output(
                    display_name="frame_filter",
                    tooltip="For Stream Sampler, Stream Video and Stream Step.",
                )
            ],
        )

    @classmethod
    def execute(cls, threshold: float, most_skipped: int) -> io.NodeOutput:
        """Check the numbers and return the rule."""
        return io.NodeOutput(SkipRule(threshold, most_skipped))
