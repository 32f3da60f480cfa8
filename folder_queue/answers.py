"""What a ComfyUI server says, as values read from its JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict


class Answer(NamedTuple):
    """The body of an answer, and the bytes that it announced, if it did."""

    size: int | None
    body: bytes


class Message(TypedDict):
    """A message of a prompt or of the server; what `data` holds depends on the type."""

    type: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """How far a node is: `value` of `total`. `node_id` is the key in the queued graph."""

    node_id: str
    value: int
    total: int


@dataclass(frozen=True)
class QueueState:
    """Ids of the prompts that run and of those that wait."""

    running: tuple[str, ...]
    waiting: tuple[str, ...]

    @classmethod
    def parse(cls, answer: dict[str, Any]) -> QueueState:
        """Read what GET /queue answers; its items are [number, prompt id, ...]."""
        lists = (answer["queue_running"], answer["queue_pending"])
        return cls(*(tuple(item[1] for item in items) for items in lists))


@dataclass(frozen=True)
class SavedFile:
    """A file on the server: `type` is "output", "input" or "temp", the folder it lies in."""

    filename: str
    subfolder: str
    type: str

    @property
    def path(self) -> str:
        """Its path in that folder."""
        return f"{self.subfolder}/{self.filename}".lstrip("/")


@dataclass(frozen=True)
class PromptResult:
    """What a prompt left behind.

    `outputs` is the server's record, {node id: {kind: [...]}}, and `ending` its last message.
    `executed` are the nodes that did not come from the server's cache.
    """

    outputs: dict[str, dict[str, Any]]
    ending: Message
    output_dir: Path | None = None
    executed: tuple[str, ...] = ()

    @classmethod
    def parse(cls, record: dict[str, Any], output_dir: Path | None = None) -> PromptResult:
        """Read a record of GET /history."""
        kind, data = record["status"]["messages"][-1]
        return cls(record["outputs"], Message(type=kind, data=data), output_dir)

    def entries(self, node_id: str | None = None) -> list[SavedFile]:
        """List what one node saved in the output folder, or what all did, in order."""
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
        """List the paths of the same; ValueError when this machine cannot see the folder."""
        if self.output_dir is None:
            raise ValueError("where this server saves is not known; use entries() and download")
        return [self.output_dir / entry.path for entry in self.entries(node_id)]
