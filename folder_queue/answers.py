"""A ComfyUI server's answers, as values parsed from its JSON.

Nothing else looks into an answer. What ComfyUI never says raises NonsenseError here, whatever JSON
value it is, so that the callers may rely on the types.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeGuard

from .errors import NonsenseError, words

# Larger numbers are no counts; the bars compute with floats.
_LARGEST_COUNT = 2**53


class Answer(NamedTuple):
    """The body of an HTTP response, and its Content-Length in bytes, if it has one."""

    size: int | None
    body: bytes


class Message(TypedDict):
    """A message about a prompt or the server; the contents of `data` depend on the type."""

    type: str
    data: dict[str, Any]


def parse_json(where: str, text: str | bytes) -> Any:
    """Parse the JSON document that the server answered at `where`."""
    try:
        return json.loads(text)
    # Brackets within brackets, deep enough, are a RecursionError.
    except (ValueError, RecursionError) as error:
        raise NonsenseError(where, "JSON", text) from error


def as_object(where: str, value: Any) -> dict[str, Any]:
    """Return a value of an answer that must be an object."""
    if not isinstance(value, dict):
        raise NonsenseError(where, "an object", value)
    return value


def as_list(where: str, value: Any) -> list[Any]:
    """Return a value of an answer that must be a list."""
    if not isinstance(value, list):
        raise NonsenseError(where, "a list", value)
    return value


def parse_message(where: str, text: str) -> Message:
    """Parse a websocket's message. The data of types that no ComfyUI sends may be anything."""
    said = as_object(where, parse_json(where, text))
    kind, data = said.get("type"), said.get("data")
    if not isinstance(kind, str):
        raise NonsenseError(where, "a message with a type", said)
    # Other packs send what they like to every listener.
    message = Message(type=kind, data=data if isinstance(data, dict) else {})
    if kind == "executing" and not _is_node(data):
        raise NonsenseError(where, "the node that is executing", said)
    return message


def _is_node(data: Any) -> bool:
    return (
        isinstance(data, dict)
        and "node" in data
        and (data["node"] is None or isinstance(data["node"], str))
    )


@dataclass(frozen=True)
class Progress:
    """The progress of a node: `value` of `total`. `node_id` is its key in the queued graph."""

    node_id: str
    value: int
    total: int

    @classmethod
    def parse(cls, data: dict[str, Any]) -> Progress | None:
        """Parse the data of a "progress" message.

        None if it is no progress of a node: it is only for show, and nothing a video should fail
        for.
        """
        node, counts = data.get("node"), (data.get("value"), data.get("max"))
        if not (isinstance(node, str) and node):
            return None
        whole = [int(count) for count in counts if _is_count(count)]
        return cls(node, *whole) if len(whole) == len(counts) else None


@dataclass(frozen=True)
class QueueState:
    """Ids of the running prompts and of the waiting ones."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]

    @classmethod
    def parse(cls, answer: Any) -> QueueState:
        """Parse the answer to GET /queue; its items are [number, prompt id, ...]."""
        where = "/queue"
        told = as_object(where, answer)
        lists = [as_list(where, told.get(name)) for name in ("queue_running", "queue_pending")]
        return cls(*(tuple(_queued_id(where, item) for item in items) for items in lists))


@dataclass(frozen=True)
class SavedFile:
    """A file on the server, in the folder that `type` names: "output", "input" or "temp"."""

    filename: str
    subfolder: str
    type: str

    @classmethod
    def parse(cls, entry: Any) -> SavedFile | None:
        """Parse a file as the server lists it; None if it is none, or has no name."""
        if not isinstance(entry, dict):
            return None
        name, folder, kind = entry.get("filename"), entry.get("subfolder", ""), entry.get("type")
        if not (name and _is_text(name) and _is_text(folder) and _is_text(kind)):
            return None
        return cls(name, folder, kind)

    @property
    def path(self) -> str:
        """The path within that folder."""
        return f"{self.subfolder}/{self.filename}".lstrip("/")


def parse_uploaded(where: str, body: bytes) -> SavedFile:
    """Parse the answer to an upload: the file under the name that the server gave it."""
    answer = as_object(where, parse_json(where, body))
    file = SavedFile.parse({**answer, "filename": answer.get("name")})
    if file is None:
        raise NonsenseError(where, "the name of the file", answer)
    return file


@dataclass(frozen=True)
class PromptResult:
    """The result of a finished prompt.

    `outputs` is the server's record, {node id: {kind: [...]}}, and `ending` its last message.
    `executed` holds the ids of the nodes that ran, rather than come from the server's cache.
    """

    outputs: dict[str, dict[str, Any]]
    ending: Message
    output_dir: Path | None = None
    executed: tuple[str, ...] = ()

    @classmethod
    def parse(cls, record: Any, output_dir: Path | None = None) -> PromptResult:
        """Parse a record from GET /history."""
        where = "/history"
        told = as_object(where, record)
        outputs = as_object(where, told.get("outputs"))
        for output in outputs.values():
            as_object(where, output)
        messages = as_list(where, as_object(where, told.get("status")).get("messages"))
        return cls(outputs, _ending(where, messages), output_dir)

    def entries(self, node_id: str | None = None) -> list[SavedFile]:
        """List the files that one node, or all nodes, saved in the output folder, in order."""
        chosen = self.outputs.values() if node_id is None else [self.outputs.get(node_id, {})]
        listed = [SavedFile.parse(entry) for output in chosen for entry in _listed(output)]
        return [file for file in listed if file is not None and file.type == "output"]

    def files(self, node_id: str | None = None) -> list[Path]:
        """List the paths of those files. Raises ValueError without an `output_dir`."""
        if self.output_dir is None:
            raise ValueError("where this server saves is not known; use entries() and download")
        return [self.output_dir / entry.path for entry in self.entries(node_id)]


@dataclass(frozen=True)
class Failure:
    """Why a prompt failed, as its last message says; `traceback` is the node's, or ""."""

    text: str
    traceback: str = ""

    @classmethod
    def parse(cls, ending: Message) -> Failure | None:
        """Parse the last message of a prompt; None if the prompt succeeded."""
        data = ending["data"]
        node = f"node {words(data.get('node_id'))} ({words(data.get('node_type'))})"
        if ending["type"] == "execution_interrupted":
            return cls(f"interrupted in {node}")
        if ending["type"] != "execution_error":
            return None
        said, trace = words(data.get("exception_message", "")).strip(), data.get("traceback")
        lines = map(words, trace) if isinstance(trace, list) else []
        return cls(f"{node} failed: {said}", "".join(lines))


def _queued_id(where: str, item: Any) -> str:
    if not (isinstance(item, list) and len(item) > 1 and isinstance(item[1], str)):
        raise NonsenseError(where, "a prompt with its id", item)
    return item[1]


def _ending(where: str, messages: list[Any]) -> Message:
    last = messages[-1] if messages else None
    if not (isinstance(last, list) and len(last) == 2):
        raise NonsenseError(where, "the last message of the prompt", last)
    kind, data = last
    if not (isinstance(kind, str) and isinstance(data, dict)):
        raise NonsenseError(where, "the last message of the prompt", last)
    return Message(type=kind, data=data)


def _listed(output: dict[str, Any]) -> Iterable[Any]:
    return (entry for items in output.values() if isinstance(items, list) for entry in items)


def _is_text(value: Any) -> TypeGuard[str]:
    """Return whether a value is text, which half of a surrogate pair is not."""
    return isinstance(value, str) and value == value.encode(errors="replace").decode()


def _is_count(value: Any) -> TypeGuard[float]:
    """Return whether a value is a number that counts something; NaN is none."""
    return isinstance(value, (int, float)) and 0 <= value <= _LARGEST_COUNT
