"""Load Recording: what was recorded live, as a video and as what Stream Video renders it with."""

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import InputImpl, io

from ..live2diff_core.live.loaded_recording import LoadedRecording
from ..live2diff_core.live.recording import FACTS
from .live_files import FOLDER
from .prompts import encoder
from .types import CATEGORY, RecordingType

RECORDINGS = "recordings"
AS_RECORDED, OF_THE_NODE = "as recorded", "of the node"
NO_RECORDING = "(no recording in output/live2diff/recordings)"


def recordings_folder() -> Path:
    """Return the folder that holds all recordings."""
    return Path(folder_paths.get_output_directory(), FOLDER, RECORDINGS)


def recordings() -> dict[str, Path]:
    """Map names to the folders of recordings, the newest first."""
    root = recordings_folder()
    found = [path.parent for path in root.glob(f"*/{FACTS}")]
    # Links that lead out of the folder are left out.
    inside = [folder for folder in found if folder.resolve().parent == root.resolve()]
    by_time = sorted(inside, key=lambda folder: folder.stat().st_mtime, reverse=True)
    return {folder.name: folder for folder in by_time}


class Live2DiffLoadRecording(io.ComfyNode):
    """Reads a recording of Live Stream."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLoadRecording",
            display_name="Load Recording",
            category=CATEGORY,
            description="Reads what 'Live Stream' recorded: the frames that entered the model, for "
            "'Stream Video', and everything that was changed meanwhile, for its 'recording'. "
            "Rendered so, it is what was seen, or the same moments in another quality.",
            inputs=[
                io.Combo.Input(
                    "recording",
                    options=list(recordings()) or [NO_RECORDING],
                    tooltip="From output/live2diff/recordings, the newest first. Press R in the "
                    "browser to see new ones.",
                ),
                io.Combo.Input(
                    "settings",
                    options=[AS_RECORDED, OF_THE_NODE],
                    tooltip="Seed, steps, denoise, cfg and similar frames. as recorded: as they "
                    "were live, with all changes. of the node: what Stream Video says, from "
                    "beginning to end; prompts and hard cuts change as they did live.",
                ),
                io.Clip.Input("clip", optional=True, tooltip="For 'prompts'."),
                io.String.Input(
                    "prompts",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Other prompts at the same moments, one a line in the order in which "
                    "they were changed; empty lines keep what was recorded. Needs 'clip'.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The frames that were recorded."),
                RecordingType.Output(display_name="recording", tooltip="For Stream Video."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, recording: str, **_: object) -> str:
        """Name the version of the recording."""
        folder = recordings().get(recording)
        return "" if folder is None else f"{folder}|{(folder / FACTS).stat().st_mtime_ns}"

    @classmethod
    def validate_inputs(cls, recording: str) -> bool | str:
        """Accept recordings that were made after the page was loaded."""
        found = recordings()
        if recording in found:
            return True
        if not found:
            return "There is no recording yet. Make one with 'Live Stream'."
        return f"There is no recording {recording!r}; found: {', '.join(list(found)[:20])}."

    @classmethod
    def execute(
        cls, recording: str, settings: str, clip: Any = None, prompts: str = ""
    ) -> io.NodeOutput:
        """Read it.

        Raises:
            ValueError: it does not exist or is damaged, or the prompts do not fit.
        """
        folder = recordings().get(recording)
        if folder is None:
            raise ValueError(f"There is no recording {recording!r}.")
        loaded = LoadedRecording.read(folder, settings == AS_RECORDED)
        if prompts.strip():
            if clip is None:
                raise ValueError("Load Recording: 'prompts' need 'clip'. Connect the CLIP.")
            lines = [line.strip() for line in prompts.strip("\n").splitlines()]
            loaded = loaded.with_prompts(lines, encoder(clip))
        return io.NodeOutput(InputImpl.VideoFromFile(str(loaded.video)), loaded)
