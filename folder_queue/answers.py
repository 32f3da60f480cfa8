"""A ComfyUI server's answers, as values parsed from its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict


class Answer(NamedTuple):
    """The body of an HTTP response, and its Content-Length in bytes, if it has one."""

    size: int | None
    body: bytes


class Message(TypedDict):
    """A message about a prompt or the server; the contents of `data` depend on the type."""

    type: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """The progress of a node: `value` of `total`. `node_id` is its key in the queued graph."""

    node_id: str
    value: int
    total: int


@dataclass(frozen=True)
class QueueState:
    """Ids of the running prompts and of the waiting ones."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> QueueState:
        """Parse the answer to GET /queue; its items are [number, prompt id, ...]."""
        lists = (answer["queue_running"], answer["queue_pending"])
        return cls(*(tuple(item[1] for item in items) for items in lists))


@dataclass(frozen=True)
class SavedFile:
    """A file on the server, in the folder that `type` names: "output", "input" or "temp"."""

    filename: str
    subfolder: str
    type: str

    @property
    def path(self) -> str:
        """The path within that folder."""
        return f"{self.subfolder}/{self.filename}".lstrip("/")


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
    def parse(cls, record: dict[str, Any], output_dir: Path | None = None) -> PromptResult:
        """Parse a record from GET /history."""
        kind, data = record["status"]["messages"][-1]
        return cls(record["outputs"], Message(type=kind, data=data), output_dir)

    def entries(self, node_id: str | None = None) -> list[SavedFile]:
        """List the files that one node, or all nodes, saved in the output folder, in order."""
        chosen = self.outputs.values() if node_id is None else [self.outputs.get(node_id, {})]
        return [
            SavedFile(entry["filename"], entry["subfolder"], entry["type"])
            for output in chosen
            for items in output.values()
            if isinstance(items, list)
            for entry in items
            if isinstance(entry, dict) and entry.get("type") == "output"
        ]

    def files(self, node_id: str | None = None) -> list[Path]:
        """List the paths of those files. Raises ValueError without an `output_dir`."""
        if self.output_dir is None:
            raise ValueError("where this server saves is not known; use entries() and download")
        return [self.output_dir / entry.path for entry in self.entries(node_id)]
