"""Partial Results: lists what stopped runs of Stream Video have left, and removes it."""

from comfy_api.latest import io

from ..live2diff_core.run.partial_folders import PartialInfo, list_partial, remove_partial
from .kept_results import RESULTS, partial_root
from .live_streams import always
from .node_text import show_text
from .types import CATEGORY

ALL = "all"


class Live2DiffPartialResults(io.ComfyNode):
    """Lists and removes folders of partial results."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node to ComfyUI."""
        return io.Schema(
            node_id="Live2DiffPartialResults",
            display_name="Partial Results",
            category=CATEGORY,
            description="Lists what stopped runs of Stream Video have left in "
            "output/live2diff_partial, and removes it. Works in a graph of its own.",
            search_aliases=["clean up", "disk space", "partial video", "resume"],
            inputs=[
                io.String.Input(
                    "remove",
                    default="",
                    tooltip="Empty: only list them. A name from the list: remove that one. "
                    f"'{ALL}': remove all that no run is using. A removed video begins anew.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="list", tooltip="A line for each, as shown on the node."
                )
            ],
            is_output_node=True,
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: object) -> float:
        """Make the node run every time, because the folders change."""
        return always()

    @classmethod
    def execute(cls, remove: str) -> io.NodeOutput:
        """Remove what is asked for, and list the rest.

        Raises:
            ValueError: there is no such partial result, or a run is using it.
        """
        RESULTS.sweep()
        remove, root = remove.strip(), partial_root()
        removed = _remove(remove, list_partial(root)) if remove else []
        lines = [f"Removed {info}" for info in removed]
        lines += [str(info) for info in list_partial(root)] or ["There are no partial results."]
        text = "\n".join(lines)
        show_text(cls.hidden.unique_id, text)
        return io.NodeOutput(text)


def _remove(name: str, found: list[PartialInfo]) -> list[PartialInfo]:
    """Remove the folder of a name, or all; return those that were removed."""
    asked = [info for info in found if name in (ALL, info.folder.path.name)]
    readable = [info for info in asked if not info.problem]
    free = [info for info in readable if info.folder.result() not in RESULTS.used()]
    removed = remove_partial(free, "it was asked for")
    if name != ALL and not removed:
        why = "there is none of that name."
        if asked:
            why = "a run is using it." if free else "a VIDEO in ComfyUI's memory still uses it."
        if asked and not readable:
            why = asked[0].problem
        raise ValueError(f"The partial result '{name}' cannot be removed: {why}")
    return removed
