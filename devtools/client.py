"""A client of a running ComfyUI: queue an API-format graph, follow it, fetch what it made.

Everything is synchronous, and works where an event loop is running already, too.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devtools.websocket import MESSAGE_SECONDS, MessageReader, PromptError

Graph = dict[str, dict[str, Any]]
RECORD_SECONDS = 30.0


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
    output_dir: Path
    seconds: float = 0.0
    executed: list[str] = field(default_factory=list)

    def files(self, node_id: str | None = None) -> list[Path]:
        """Paths of the saved files, of one node or of all, in the order of the record."""
        chosen = self.outputs.values() if node_id is None else [self.outputs.get(node_id, {})]
        entries = [
            entry
            for output in chosen
            for items in output.values()
            if isinstance(items, list)
            for entry in items
            if isinstance(entry, dict) and entry.get("type") == "output"
        ]
        return [self.output_dir / entry["subfolder"] / entry["filename"] for entry in entries]


class ComfyClient:
    """Talks to one server at `url`; `output_dir` is where that server saves."""

    def __init__(self, url: str, output_dir: Path) -> None:
        """Keep the address; nothing is connected yet."""
        self.url = url
        self.output_dir = output_dir
        self.client_id = uuid.uuid4().hex

    def get(self, path: str) -> Any:
        """GET a JSON document, for example `/object_info/KSampler`."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=MESSAGE_SECONDS) as reply:
            return json.load(reply)

    def queue_prompt(self, graph: Graph) -> str:
        """Queue a graph and return its prompt id; PromptError when the server refuses it."""
        body = json.dumps({"prompt": graph, "client_id": self.client_id}).encode()
        request = urllib.request.Request(
            f"{self.url}/prompt", body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=MESSAGE_SECONDS) as reply:
                answer = json.load(reply)
        except urllib.error.HTTPError as error:
            raise PromptError(_refusal(error.read().decode(errors="replace"), graph)) from error
        if answer.get("node_errors"):
            # The server runs the outputs that are in order; a graph in part is no use to us.
            self._drop(answer["prompt_id"])
            raise PromptError(_refusal(json.dumps({"error": {}, **answer}), graph))
        return str(answer["prompt_id"])

    def interrupt(self) -> None:
        """Ask the server to stop the prompt that is running."""
        self._post("/interrupt", {})

    def _drop(self, prompt_id: str) -> None:
        self._post("/queue", {"delete": [prompt_id]})
        self.interrupt()

    def _post(self, path: str, body: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=MESSAGE_SECONDS):
            pass

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The server's record of a finished prompt, or {} while there is none."""
        return dict(self.get(f"/history/{prompt_id}").get(prompt_id, {}))

    def _finished(self, prompt_id: str) -> dict[str, Any]:
        """The record of a prompt that has ended; the server writes it just after it says so."""
        deadline = time.monotonic() + RECORD_SECONDS
        while not (record := self.history(prompt_id)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if not record:
            raise PromptError(f"the server ended prompt {prompt_id} but keeps no record of it")
        return record

    def messages(self, graph: Graph) -> Iterator[dict[str, Any]]:
        """Queue a graph and yield its websocket messages until it has ended, the last included.

        Each is {"type": ..., "data": {...}} as ComfyUI sends it. Raises PromptError when the
        prompt is refused; a failure while running is yielded, not raised (see `follow`).
        """
        with MessageReader(f"{self.url}/ws?clientId={self.client_id}") as reader:
            prompt_id = self.queue_prompt(graph)
            while True:
                message = reader.receive()
                data = message.get("data") or {}
                if data.get("prompt_id", prompt_id) != prompt_id:
                    continue
                # The server sends the id with almost everything; we promise it with all.
                yield {**message, "data": {**data, "prompt_id": prompt_id}}
                if message["type"] in ENDINGS:
                    return

    def follow(self, graph: Graph) -> Iterator[Progress]:
        """Queue a graph and yield progress until it has succeeded.

        Raises PromptError with the nodes' own words when it is refused, fails or is interrupted.
        """
        for message in self.messages(graph):
            yield from _progress(message)
            _raise_on_failure(message)

    def run(
        self,
        graph: Graph,
        on_progress: Callable[[Progress], None] | None = None,
        on_node: Callable[[str], None] | None = None,
    ) -> PromptResult:
        """Queue a graph, wait for its end and return what it made; PromptError when it failed.

        `on_node` is called with the id of each node as it begins, `on_progress` within nodes.
        """
        prompt_id, executed = "", []
        for message in self.messages(graph):
            data = message["data"]
            prompt_id = data["prompt_id"]
            if message["type"] == "executing" and data.get("node"):
                executed.append(data["node"])
                if on_node is not None:
                    on_node(data["node"])
            for progress in _progress(message):
                if on_progress is not None:
                    on_progress(progress)
            _raise_on_failure(message)
        record = self._finished(prompt_id)
        seconds = _duration(record)
        return PromptResult(
            prompt_id, record.get("outputs", {}), self.output_dir, seconds, executed
        )


ENDINGS = frozenset({"execution_success", "execution_error", "execution_interrupted"})


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
