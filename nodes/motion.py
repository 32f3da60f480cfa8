"""Motion module nodes: load it, choose its attention window, apply it to a MODEL."""

import folder_paths
from comfy_api.latest import io

from ..live2diff_core.live2diff.layout import SD15
from ..live2diff_core.live2diff.patch import apply_live2diff, load_motion_module
from ..live2diff_core.live2diff.window import AttentionMode, AttentionWindow
from ..live2diff_core.sample_model.loading import motion_module_path
from ..live2diff_core.stream.byte_size import format_bytes
from ..live2diff_core.stream.memory import StreamShape
from .node_text import show_text
from .types import CATEGORY, MotionModuleType, SettingsType

FOLDERS = ("live2diff", "animatediff_models")
EXAMPLE_SIZES = ((256, 256), (512, 512), (768, 512))
NO_FILE = "(no file in models/live2diff or models/animatediff_models)"
DOWNLOAD_HINT = (
    "Put Live2Diff's live2diff.ckpt into ComfyUI/models/live2diff, or an AnimateDiff SD1.5 motion "
    "module into ComfyUI/models/animatediff_models, then press R in the browser."
)


def motion_module_files() -> dict[str, str]:
    """Map displayed names to full paths; the first folder wins if both contain a file.

    Last comes the sample model's motion module, which lies in this pack.
    """
    files: dict[str, str] = {}
    for folder in FOLDERS:
        for name in folder_paths.get_filename_list(folder):
            path = folder_paths.get_full_path(folder, name)
            if path is not None:
                files.setdefault(name, path)
    sample = motion_module_path()
    if sample is not None:
        files.setdefault(sample.name, str(sample))
    return files


class Live2DiffLoadMotionModule(io.ComfyNode):
    """Reads a motion-module file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLoadMotionModule",
            display_name="Load Motion Module",
            category=CATEGORY,
            description="Loads Live2Diff's motion module (with its depth encoder), or an "
            "AnimateDiff SD1.5 motion module v1, v2 or v3, which then runs causally too.",
            inputs=[
                io.Combo.Input(
                    "motion_module",
                    options=sorted(motion_module_files()) or [NO_FILE],
                    tooltip="File from models/live2diff or models/animatediff_models. What it is "
                    "is found out from its contents, not from its name.",
                )
            ],
            outputs=[
                MotionModuleType.Output(
                    display_name="motion_module", tooltip="For 'Apply Live2Diff'."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, motion_module: str) -> bool | str:
        """Report what to download, instead of the host's "value not in list"."""
        files = motion_module_files()
        if motion_module in files:
            return True
        if not files:
            return f"No motion module found. {DOWNLOAD_HINT}"
        found = ", ".join(sorted(files))
        return f"There is no motion module {motion_module!r}; found: {found}. {DOWNLOAD_HINT}"

    @classmethod
    def execute(cls, motion_module: str) -> io.NodeOutput:
        """Load the file."""
        path = motion_module_files().get(motion_module)
        if path is None:
            raise FileNotFoundError(f"{motion_module} was not found. {DOWNLOAD_HINT}")
        return io.NodeOutput(load_motion_module(path))


class Live2DiffSettings(io.ComfyNode):
    """Makes an AttentionWindow."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        default = AttentionWindow()
        return io.Schema(
            node_id="Live2DiffSettings",
            display_name="Configure Warm-up & KV-Cache",
            category=CATEGORY,
            description="How far each frame looks back in time. The defaults are what Live2Diff "
            "was trained with; shows the memory they need.",
            inputs=[
                io.Int.Input(
                    "warmup_frames",
                    default=default.warmup_frames,
                    min=1,
                    max=31,
                    tooltip="First frames of the stream, translated together. They stay visible "
                    "to every later frame and hold the look of the stream. Trained with 8.",
                ),
                io.Int.Input(
                    "window_size",
                    default=default.window_size,
                    min=1,
                    max=32,
                    tooltip="Frames visible at once: warm-up frames plus the most recent ones. "
                    "Memory grows with it. Trained with 16; 24 at most for live2diff.ckpt, 32 for "
                    "AnimateDiff v2 and v3.",
                ),
                io.Combo.Input(
                    "attention_mode",
                    options=[mode.value for mode in AttentionMode],
                    default=default.attention_mode.value,
                    tooltip="causal_warmup is Live2Diff. causal: no warm-up frames, the look may "
                    "drift. sliding and bidirectional: chunks that see their own future, for "
                    "comparison; they delay the output by a chunk.",
                ),
            ],
            outputs=[
                SettingsType.Output(display_name="settings", tooltip="For 'Apply Live2Diff'.")
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, warmup_frames: int, window_size: int, attention_mode: str) -> io.NodeOutput:
        """Check the numbers and show the bytes that the KV-cache needs."""
        window = AttentionWindow(window_size, warmup_frames, AttentionMode(attention_mode))
        show_text(cls.hidden.unique_id, memory_table(window))
        return io.NodeOutput(window)


def memory_table(window: AttentionWindow) -> str:
    """Format the KV-cache's size at common frame sizes, for SD1.5 in float16."""
    lines = ["KV-cache per denoising step (float16, cfg 1):"]
    for width, height in EXAMPLE_SIZES:
        shape = StreamShape((height // 8, width // 8), passes=1, bytes_per_value=2)
        size = SD15.cache_bytes(shape, window.window_size)
        lines.append(f"{width} x {height}: {format_bytes(size)}")
    return "\n".join(lines)


class Live2DiffApply(io.ComfyNode):
    """Applies a motion module to a MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffApply",
            display_name="Apply Live2Diff",
            category=CATEGORY,
            description="Puts a motion module on an SD1.5 MODEL, with any LoRAs, before or after. "
            "Sample the result with 'Stream Sampler'.",
            inputs=[
                io.Model.Input(
                    "model", tooltip="Any SD1.5 MODEL; add LCM-LoRA to it for few-step sampling."
                ),
                MotionModuleType.Input("motion_module", tooltip="From 'Load Motion Module'."),
                SettingsType.Input(
                    "settings",
                    optional=True,
                    tooltip="From 'Configure Warm-up & KV-Cache'. Without it: 8 warm-up frames in "
                    "a window of 16, as in the paper.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The MODEL with the motion module, for the stream nodes only.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, model, motion_module, settings: AttentionWindow | None = None
    ) -> io.NodeOutput:
        """Return a patched clone of the MODEL."""
        return io.NodeOutput(apply_live2diff(model, motion_module, settings or AttentionWindow()))
