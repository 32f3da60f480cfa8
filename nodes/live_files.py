"""Nodes that save live streams to files and load them."""

import re
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..live2diff_core.run.registry import STREAMS
from ..live2diff_core.run.saved_stream import SavedStream, file_version
from ..live2diff_core.stream.byte_size import format_bytes
from .live_streams import always, passed, passing, stream_list, stream_name
from .node_text import show_text
from .types import CATEGORY

FOLDER = "live2diff"
SUFFIX = ".safetensors"
NO_FILE = "(no saved stream in output/live2diff or input)"
ONCE, EVERY_RUN = "once", "every run"
# Seconds after which a loaded stream is dropped if no Stream Step has used it.
MAX_IDLE = 30 * 60.0


def checked_name(name: str) -> str:
    """Check and return a file name, which must not lead into another folder.

    Raises:
        ValueError: it has characters that are not allowed.
    """
    stem = name.strip().removesuffix(SUFFIX)
    if not re.fullmatch(r"[^\W_][\w .-]{0,99}", stem) or stem.endswith((".", " ")):
        raise ValueError(
            f"'{name}' cannot be the name of a saved stream. Use letters, digits, spaces, dots, "
            "hyphens and underscores, beginning with a letter or a digit, and no folders."
        )
    return stem + SUFFIX


def saved_streams() -> dict[str, Path]:
    """Map displayed names to files, from output/live2diff and from input/."""
    folders = {
        "output": Path(folder_paths.get_output_directory(), FOLDER),
        "input": Path(folder_paths.get_input_directory()),
    }
    return {
        f"{path.name} [{place}]": path
        for place, folder in folders.items()
        for path in sorted(folder.glob(f"*{SUFFIX}"))
        # Links that lead out of the folder are left out.
        if path.resolve().parent == folder.resolve()
    }


class Live2DiffSaveStream(io.ComfyNode):
    """Writes a live stream to a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffSaveStream",
            display_name="Save Stream",
            category=CATEGORY,
            description="Writes a live stream's whole state to a file in output/live2diff, for "
            "'Load Stream'. The stream goes on. Works in a graph of its own, too.",
            inputs=[
                io.String.Input(
                    "stream", default="live", tooltip="Name of the stream, as in 'Stream Step'."
                ),
                io.String.Input(
                    "file_name",
                    default="live",
                    tooltip="Name of the file, without folders. A file of that name is replaced.",
                ),
                *passing("saving"),
            ],
            outputs=passed(),
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Make the node run every time, because the stream changes."""
        return always()

    @classmethod
    def execute(cls, stream: str, file_name: str, after=None) -> io.NodeOutput:
        """Write the file, atomically.

        Raises:
            ValueError: there is no such stream, or the file name is not allowed.
        """
        path = Path(folder_paths.get_output_directory(), FOLDER, checked_name(file_name))
        found = STREAMS.get(stream_name(stream))
        if found is None:
            raise ValueError(
                f"There is no live stream '{stream}' to save. {stream_list()} A stream begins "
                "with the first run of 'Stream Step', and is let go when it is idle too long."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save(path)
        size = format_bytes(path.stat().st_size)
        show_text(cls.hidden.unique_id, f"Saved {FOLDER}/{path.name}: {size}")
        return io.NodeOutput(after)


class Live2DiffLoadStream(io.ComfyNode):
    """Reads a live stream from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffLoadStream",
            display_name="Load Stream",
            category=CATEGORY,
            description="Reads a saved stream; the next 'Stream Step' goes on with it as if "
            "nothing had happened. Model, size and settings must be those it was saved with.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=list(saved_streams()) or [NO_FILE],
                    tooltip="From output/live2diff, where 'Save Stream' puts it, or from input/. "
                    "Press R in the browser to see new files.",
                ),
                io.String.Input(
                    "stream",
                    default="live",
                    tooltip="Name it gets, as in 'Stream Step'. A live stream of that name is "
                    "replaced.",
                ),
                io.Combo.Input(
                    "when",
                    options=[ONCE, EVERY_RUN],
                    tooltip="Once: not again while the stream that came from this file lives; so "
                    "the node may stay in a graph that runs for every frame. Every run: back to "
                    "the saved frame each time.",
                ),
                *passing("loading"),
            ],
            outputs=passed(),
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Make the node run every time: whether it loads depends on the live streams."""
        return always()

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        """Accept files that were saved after the page was loaded; list all files otherwise."""
        files = saved_streams()
        if file in files:
            return True
        if not files:
            return "There is no saved stream yet. Make one with 'Save Stream'."
        return f"There is no saved stream {file!r}; found: {', '.join(files)}."

    @classmethod
    def execute(cls, file: str, stream: str, when: str, after=None) -> io.NodeOutput:
        """Read the file, unless its stream is live already.

        Raises:
            ValueError: the file does not exist, is damaged or of another kind.
        """
        path, name = saved_streams().get(file), stream_name(stream)
        if path is None:
            raise ValueError(f"There is no saved stream {file!r}.")
        living = STREAMS.get(name)
        if when == EVERY_RUN or living is None or living.source != file_version(path):
            STREAMS.put(SavedStream.read(name, path), MAX_IDLE)
        show_text(cls.hidden.unique_id, stream_list())
        return io.NodeOutput(after)
