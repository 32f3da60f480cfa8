"""The workflow for every video: an API-format graph whose input and output are replaced."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .client import Graph
from .errors import UsageError

LOAD_VIDEO, SAVE_VIDEO = "LoadVideo", "SaveVideo"
# The names of inputs that hold a video file.
FILE_INPUTS = ("file", "video")
HOW_TO_EXPORT = (
    "Open it in ComfyUI, choose Workflow > Export (API) (in older versions: Save (API Format), "
    "after turning on the dev mode options), and give that file"
)


@dataclass(frozen=True)
class Workflow:
    """A graph, the node and input that name the video, and the node that saves the result."""

    graph: Graph
    video_node: str
    video_input: str
    save_node: str

    def for_video(self, name: str, prefix: str) -> Graph:
        """Return the graph with `name` as the video to load and `prefix` as the name to save to."""
        graph = copy.deepcopy(self.graph)
        graph[self.video_node]["inputs"][self.video_input] = name
        graph[self.save_node]["inputs"]["filename_prefix"] = prefix
        return graph

    def fingerprint(self) -> str:
        """Hash everything but the video that determines the result."""
        graph = self.for_video("", "")
        plain = {key: [node["class_type"], node["inputs"]] for key, node in graph.items()}
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def title(self, node_id: str) -> str:
        """Return a node's title or class; expanded nodes have ids like 12.0.3."""
        node = self.graph.get(node_id) or self.graph.get(node_id.split(".")[0]) or {}
        return str(_title(node) or node.get("class_type") or node_id)


def load_workflow(
    path: Path,
    changes: Iterable[str] = (),
    video_node: str | None = None,
    save_node: str | None = None,
) -> Workflow:
    """Read a workflow, change its inputs, and find the nodes that load and save the video.

    Args:
        path: an API-format file, or a UI-format file with its API twin in `api/` beside it.
        changes: new values of inputs, as in "13.seed=7" or "ImageScale.width=512".
        video_node: id of the node whose video is replaced; None: the only Load Video.
        save_node: id of the node whose result is fetched; None: the only Save Video.

    Raises UsageError with one line that says what to do.
    """
    graph = read_graph(path)
    for change in changes:
        apply_change(graph, change)
    video = video_node or _only(graph, LOAD_VIDEO, "the video", "--video-node")
    save = save_node or _only(graph, SAVE_VIDEO, "the result", "--save-node")
    if "filename_prefix" not in _node(graph, save)["inputs"]:
        raise UsageError(f"{_name(graph, save)} has no filename_prefix; choose a Save Video node")
    return Workflow(graph, video, _file_input(graph, video), save)


def read_graph(path: Path) -> Graph:
    """Read the API-format graph in `path` or its twin. Raises UsageError when there is none."""
    data = _read_json(path)
    if isinstance(data, dict) and isinstance(data.get("nodes"), list):
        twin = path.parent / "api" / path.name
        if not twin.is_file():
            raise UsageError(
                f"{path} is in the format of ComfyUI's page, which servers cannot run. "
                f"{HOW_TO_EXPORT}"
            )
        data = _read_json(twin)
    if not _is_graph(data):
        raise UsageError(f"{path} is no ComfyUI workflow. {HOW_TO_EXPORT}")
    return data


def apply_change(graph: Graph, change: str) -> None:
    """Change one input in place: NODE.INPUT=VALUE, the node by id or by a class that occurs once.

    VALUE is read as JSON (numbers, true, false) unless the input holds text. Raises UsageError
    when the node or input does not exist, or the input is linked or of another kind.
    """
    place, equals, text = change.partition("=")
    node, dot, name = place.partition(".")
    if not (equals and dot and name):
        raise UsageError(f"--set takes NODE.INPUT=VALUE, as in ImageScale.width=512; got {change}")
    node_id = node if node in graph else _only(graph, node, "--set", "the id in --set")
    inputs = graph[node_id]["inputs"]
    if name not in inputs:
        raise UsageError(f"{_name(graph, node_id)} has no input {name}; it has {', '.join(inputs)}")
    if isinstance(inputs[name], list):
        raise UsageError(f"{name} of {_name(graph, node_id)} comes from node {inputs[name][0]}")
    inputs[name] = _value(text, inputs[name], change)


def _value(text: str, current: Any, change: str) -> Any:
    if isinstance(current, str):
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    # In Python a bool is an int, but a node tells them apart.
    kinds = (bool,) if isinstance(current, bool) else (int, float)
    if isinstance(current, (bool, int, float)) and (
        not isinstance(value, kinds) or isinstance(value, bool) != isinstance(current, bool)
    ):
        raise UsageError(f"--set {change}: the value now is {current!r}; give one of that kind")
    return value


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the workflow {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON file: {error}") from error


def _is_graph(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and bool(data)
        and all(
            isinstance(node, dict)
            and isinstance(node.get("class_type"), str)
            and isinstance(node.get("inputs"), dict)
            for node in data.values()
        )
    )


def _only(graph: Graph, class_type: str, purpose: str, option: str) -> str:
    """Return the id of the only node of a class, else raise a UsageError with the candidates."""
    found = [key for key, node in graph.items() if node["class_type"] == class_type]
    if len(found) == 1:
        return found[0]
    if found:
        names = "; ".join(_name(graph, key) for key in found)
        raise UsageError(
            f"{purpose}: there are {len(found)} {class_type} nodes: {names}. "
            f"Choose one with {option}"
        )
    names = "; ".join(_name(graph, key) for key in graph)
    raise UsageError(f"{purpose}: the workflow has no {class_type} node. It has: {names}")


def _node(graph: Graph, node_id: str) -> dict[str, Any]:
    if node_id not in graph:
        names = "; ".join(_name(graph, key) for key in graph)
        raise UsageError(f"the workflow has no node {node_id}. It has: {names}")
    return graph[node_id]


def _file_input(graph: Graph, node_id: str) -> str:
    inputs = _node(graph, node_id)["inputs"]
    for name in FILE_INPUTS:
        if isinstance(inputs.get(name), str):
            return name
    raise UsageError(
        f"{_name(graph, node_id)} names no video file ({' or '.join(FILE_INPUTS)}); choose a "
        f"Load Video node with --video-node"
    )


def _name(graph: Graph, node_id: str) -> str:
    node = graph[node_id]
    title = _title(node)
    return f"{node_id} ({node['class_type']}{f', {title!r}' if title else ''})"


def _title(node: dict[str, Any]) -> Any:
    meta = node.get("_meta")
    return meta.get("title") if isinstance(meta, dict) else None
