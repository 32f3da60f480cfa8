"""Nodes and inputs for live streams by name: list them, release them, order them by links."""

from comfy_api.latest import io

from ..live2diff_core.run.live import LiveStream
from ..live2diff_core.run.registry import STREAMS
from .node_text import show_text
from .types import CATEGORY

ALL_STREAMS = "all"


def always() -> float:
    """Return a fingerprint that equals no other, so that a node runs every time."""
    # A new object each time: the host compares identities first, and math.nan is one object.
    return float("nan")


def stream_name(name: str) -> str:
    """Check and return a stream's name.

    Raises:
        ValueError: it is empty, or means all streams.
    """
    name = name.strip()
    if not name or name == ALL_STREAMS:
        raise ValueError(
            f"A live stream needs a name, and '{ALL_STREAMS}' means all of them. Type one into "
            "'stream', such as 'live'."
        )
    return name


def passing(what: str) -> list:
    """Make an input that is passed through, so that links determine when the node runs."""
    return [
        io.AnyType.Input(
            "after",
            optional=True,
            tooltip=f"Anything: it goes through unchanged, and {what} happens once it is there. "
            "Without it, the order within a run is left to ComfyUI.",
        )
    ]


def passed() -> list:
    """Make the output that returns the passed value."""
    return [
        io.AnyType.Output(
            id="passed",
            display_name="after",
            tooltip="What came in, for the node that is to run next.",
        )
    ]


class Live2DiffResetStream(io.ComfyNode):
    """Releases live streams."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffResetStream",
            display_name="Reset Stream",
            category=CATEGORY,
            description="Lets a live stream go and gives its memory back; the next Stream Step "
            "with its name begins anew. Works in a graph of its own, too.",
            inputs=[
                io.String.Input(
                    "stream",
                    default="live",
                    tooltip=f"Name of the stream, or '{ALL_STREAMS}'.",
                ),
                io.Boolean.Input(
                    "reset",
                    default=True,
                    tooltip="Off: nothing happens, for a graph that resets only now and then.",
                ),
                *passing("the reset"),
            ],
            outputs=passed(),
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Make the node run every time."""
        return always()

    @classmethod
    def execute(cls, stream: str, reset: bool, after=None) -> io.NodeOutput:
        """Release the stream, if there is one."""
        if reset and stream.strip() == ALL_STREAMS:
            STREAMS.clear()
        elif reset:
            STREAMS.remove(stream_name(stream))
        show_text(cls.hidden.unique_id, stream_list())
        return io.NodeOutput(after)


def stream_text(name: str) -> str:
    """Describe the state of a stream, and list all streams."""
    live = STREAMS.get(name)
    if not isinstance(live, LiveStream):
        return f"{name}: finished\n{stream_list()}"
    session = live.translator.session
    if live.warming_up:
        state = f"warming up, {session.frames_in} frames so far"
    else:
        state = f"{session.frames_out} frames finished"
    note = f" ({live.note})" if live.note and live.warming_up else ""
    return f"{name}: {state}{note}\n{stream_list()}"


def stream_list() -> str:
    """List the live streams with their sizes."""
    lines = [str(info) for info in STREAMS.streams()]
    return "\n".join(["Live streams:", *lines]) if lines else "No live streams."
