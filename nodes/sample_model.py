"""The node that loads the model that ships with this pack."""

from __future__ import annotations

from comfy_api.latest import io

from ..live2diff_core.sample_model.loading import load_sample_model
from .types import CATEGORY, DepthModelType


class Live2DiffLoadSampleModel(io.ComfyNode):
    """Load the sample model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLoadSampleModel",
            display_name="Load Sample Model",
            category=CATEGORY,
            description="Loads a small model that comes with this pack, so that every workflow "
            "runs without a download. It knows a few styles: photograph, watercolour, pencil, "
            "neon, pixel art. Its motion module is in 'Load Motion Module'.",
            inputs=[],
            outputs=[
                io.Model.Output(display_name="model", tooltip="SD1.5 in small; needs no LCM-LoRA."),
                io.Clip.Output(
                    display_name="clip", tooltip="Knows the names of the styles and little else."
                ),
                io.Vae.Output(display_name="vae", tooltip="Takes the place of TAESD."),
                DepthModelType.Output(
                    display_name="depth_model",
                    tooltip="For Estimate Depth, Stream Video and Stream Step.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        """Load all parts."""
        sample = load_sample_model()
        return io.NodeOutput(sample.model, sample.clip, sample.vae, sample.depth_model)
