"""The node for prompts that change over the frames of a stream."""

from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..live2diff_core.stream.prompt_timeline import PromptChange
from ..live2diff_core.stream.prompt_track import follow
from .types import CATEGORY

KEEP, RESET = "keep", "reset"


def encoder(clip: Any) -> Callable[[str], Any]:
    """Return a call that encodes a prompt, as the node CLIP Text Encode does."""
    return lambda text: clip.encode_from_tokens_scheduled(clip.tokenize(text))


class Live2DiffPromptSchedule(io.ComfyNode):
    """Makes one prompt follow another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffPromptSchedule",
            display_name="Prompt Schedule",
            category=CATEGORY,
            description="Changes the prompt at a frame, at once or gradually. Chain several for "
            "more prompts. Each frame is shown its own prompt at all of its denoising steps.",
            search_aliases=["prompt travel", "prompt blend", "keyframes"],
            inputs=[
                io.Conditioning.Input(
                    "prompt",
                    tooltip="What comes first: a prompt, or another Prompt Schedule.",
                ),
                io.Conditioning.Input("next_prompt", tooltip="What it changes to."),
                io.Int.Input(
                    "start_frame",
                    default=48,
                    min=1,
                    max=100_000_000,
                    tooltip="First frame of the next prompt, counted from 0. In Stream Step the "
                    "frames of the live stream count.",
                ),
                io.Int.Input(
                    "blend_frames",
                    default=0,
                    min=0,
                    max=1_000_000,
                    tooltip="Frames over which the next prompt takes over; 0 is a cut.",
                ),
                io.Combo.Input(
                    "memory",
                    options=[KEEP, RESET],
                    tooltip="What becomes of the stream's memory at the change. keep: it goes on, "
                    "and holds on to the look so far. reset: it starts over, with a new warm-up.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(
                    display_name="prompt",
                    tooltip="For the stream nodes. Other samplers use the first prompt only.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, prompt, next_prompt, start_frame: int, blend_frames: int, memory: str
    ) -> io.NodeOutput:
        """Return the conditioning with the change added."""
        change = PromptChange(start_frame, blend_frames, memory == RESET)
        return io.NodeOutput(follow(prompt, next_prompt, change))
