"""A client of a running ComfyUI: queue an API-format graph, follow it, fetch what it made.

Everything is synchronous, and works where an event loop is running already, too.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .connection import AnswerError, Connection
from .errors import ConnectionLostError, PromptError, PromptRefusedError
from .websocket import MessageReader

Graph = dict[str, dict[str, Any]]
RECORD_SECONDS = 30.0
# After so much silence the server is asked whether it still knows the prompt.
SILENCE_SECONDS = 60.0
ENDINGS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


@dataclass(frozen=True)
class Progress:
    """One step of one node: `value` of `total`. `node_id` is the key in the queued graph."""

    node_id: str
    value: int
    total: int


@dataclass(frozen=True)
class PromptResult:
    """What a prompt left behind. `outputs` is the server's record: {node id: {kind: [...]}}."""

    prompt_id: str
    outputs: dict[str, Any]
    output_dir: Path | None = None
    seconds: float = 0.0
    executed: list[str] = field(default_factory=list)

    def entries(self, node_id: str | None = None) -> list[dict[str, str]]:
        """What was saved, as the server names it: {filename, subfolder, type}, in order."""
        chosen = self.outputs.values() if node_id is None else [self.outputs.get(node_id, {})]
        return [
            entry
            for output in chosen
            for items in output.values()
            if isinstance(items, list)
            for entry in items
            if isinstance(entry, dict) and entry.get("type") == "output"
        ]

    def files(self, node_id: str | None = None) -> list[Path]:
        """Paths of the saved files, of one node or of all; for a server on this machine."""
        if self.output_dir is None:
            raise ValueError("where this server saves is not known; use entries() and download")
        return [
            self.output_dir / entry["subfolder"] / entry["filename"]
            for entry in self.entries(node_id)
        ]


class ComfyClient(Connection):
    """Talks to one server; `output_dir` is where it saves, when this machine can see that."""

    def __init__(self, url: str, output_dir: Path | None = None) -> None:
        """Keep the address; nothing is connected yet."""
        super().__init__(url)
        self.output_dir = output_dir
        self.client_id = uuid.uuid4().hex

    def queue_prompt(self, graph: Graph, prompt_id: str | None = None) -> str:
        """Queue a graph and return its prompt id, a UUID, the server's choice if None is given.

        Raises PromptRefusedError when the server does not take it, or not all of it.
        """
        body: dict[str, Any] = {"prompt": graph, "client_id": self.client_id}
        if prompt_id is not None:
            body["prompt_id"] = prompt_id
        try:
            answer = json.loads(self.post("/prompt", body))
        except AnswerError as error:
            if error.status != 400:
                raise
            raise PromptRefusedError(_refusal(error.body, graph)) from error
        if answer.get("node_errors"):
            # The server runs the outputs that are in order; a graph in part is no use to us.
            self.cancel(answer["prompt_id"])
            raise PromptRefusedError(_refusal(json.dumps({"error": {}, **answer}), graph))
        return str(answer["prompt_id"])

    def interrupt(self) -> None:
        """Ask the server to stop the prompt that is running."""
        self.post("/interrupt", {})

    def cancel(self, prompt_id: str) -> None:
        """Take one prompt out of the queue, and stop it if it runs; others are left alone."""
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The server's record of a finished prompt, or {} while there is none."""
        return dict(self.get(f"/history/{prompt_id}").get(prompt_id, {}))

    def is_queued(self, prompt_id: str) -> bool:
        """Whether a prompt waits or runs."""
        queue = self.get("/queue")
        return any(
            item[1] == prompt_id for item in [*queue["queue_running"], *queue["queue_pending"]]
        )

    def _finished(self, prompt_id: str) -> dict[str, Any]:
        """The record of a prompt that has ended; the server writes it just after it says so."""
        deadline = time.monotonic() + RECORD_SECONDS
        while not (record := self.history(prompt_id)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not record:
            raise PromptError(f"the server ended prompt {prompt_id} but keeps no record of it")
        return record

    def messages(self, graph: Graph, prompt_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Queue a graph and yield its websocket messages until it has ended, the last included.

        Each is {"type": ..., "data": {...}} as ComfyUI sends it. A failure while running is
        yielded, not raised. A `prompt_id` that the server knows is not queued again
        but taken up where it is, so that after a lost connection the same call goes on.

        Raises PromptRefusedError, and ConnectionLostError when the server goes away.
        """
        with MessageReader(f"{self.url}/ws?clientId={self.client_id}") as reader:
            # In this order: a prompt that ends in between is seen by the reader or in the history.
            if prompt_id is None or not self.is_queued(prompt_id):
                if prompt_id is not None and (record := self.history(prompt_id)):
                    yield _ending(record, prompt_id)
                    return
                prompt_id = self.queue_prompt(graph, prompt_id)
            while True:
                message = reader.receive(SILENCE_SECONDS)
                if message is None:
                    message = self._after_silence(prompt_id)
                data = message.get("data") or {}
                if data.get("prompt_id", prompt_id) != prompt_id:
                    continue
                # The server sends the id with almost everything; we promise it with all.
                yield {**message, "data": {**data, "prompt_id": prompt_id}}
                if message["type"] in ENDINGS:
                    return

    def _after_silence(self, prompt_id: str) -> dict[str, Any]:
        """What there is to say of a prompt that has been silent: nothing yet, or its end."""
        if self.is_queued(prompt_id):
            return {"type": "silence", "data": {}}
        record = self.history(prompt_id)
        if not record:
            raise ConnectionLostError("the server no longer knows the prompt; it was started anew")
        return _ending(record, prompt_id)

    def run(
        self,
        graph: Graph,
        on_progress: Callable[[Progress], None] | None = None,
        on_node: Callable[[str], None] | None = None,
        prompt_id: str | None = None,
    ) -> PromptResult:
        """Queue a graph, wait for its end and return what it made; PromptError when it failed.

        `on_node` is called with the id of each node as it begins, `on_progress` within nodes.
        About `prompt_id` see `messages`.
        """
        executed: list[str] = []
        for message in self.messages(graph, prompt_id):
            data = message["data"]
            prompt_id = str(data["prompt_id"])
            if message["type"] == "executing" and data.get("node"):
                executed.append(data["node"])
                if on_node is not None:
                    on_node(data["node"])
            for progress in _progress(message):
                if on_progress is not None:
                    on_progress(progress)
            _raise_on_failure(message)
        record = self._finished(prompt_id or "")
        return PromptResult(
            prompt_id or "",
            record.get("outputs", {}),
            self.output_dir,
            _duration(record),
            executed,
        )


def _ending(record: dict[str, Any], prompt_id: str) -> dict[str, Any]:
    """The message with which a recorded prompt ended."""
    said = {name: data for name, data in record.get("status", {}).get("messages", [])}
    name = next((name for name in said if name in ENDINGS), "execution_success")
    return {"type": name, "data": {**said.get(name, {}), "prompt_id": prompt_id}}


def _progress(message: dict[str, Any]) -> Iterator[Progress]:
    data = message["data"]
    if message["type"] == "progress" and data.get("node") is not None:
        yield Progress(str(data["node"]), int(data["value"]), int(data["max"]))


def _raise_on_failure(message: dict[str, Any]) -> None:
    data = message["data"]
    if message["type"] == "execution_interrupted":
        raise PromptError(f"interrupted in node {data.get('node_id')} ({data.get('node_type')})")
    if message["type"] == "execution_error":
        said = str(data.get("exception_message", "")).strip()
        trace = "".join(data.get("traceback") or [])
        raise PromptError(f"node {data['node_id']} ({data['node_type']}) failed: {said}", trace)


def _refusal(body: str, graph: Graph) -> str:
    """The server's refusal of a graph, as one readable text."""
    try:
        answer = json.loads(body)
        error = answer["error"]
        node_errors = answer.get("node_errors") or {}
    except (ValueError, KeyError, TypeError):
        return f"the server refused the prompt: {body.strip()}"
    parts = [
        f"node {node_id} ({graph.get(node_id, {}).get('class_type', '?')}): "
        f"{item.get('message', '')} {item.get('details', '')}".strip()
        for node_id, entry in node_errors.items()
        for item in entry.get("errors", [])
    ]
    first = f"{error.get('message', '')} {error.get('details', '')}".strip()
    return f"the server refused the prompt: {'; '.join(parts) or first}"


def _duration(record: dict[str, Any]) -> float:
    """Seconds from the start of a prompt to its end, by the server's clock; 0 if unknown."""
    stamps = {
        name: data["timestamp"]
        for name, data in record.get("status", {}).get("messages", [])
        if "timestamp" in data
    }
    start, end = stamps.get("execution_start"), stamps.get("execution_success")
    return (end - start) / 1000 if start and end else 0.0
