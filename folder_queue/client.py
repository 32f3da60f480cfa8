"""A client of a running ComfyUI: queue an API-format graph, follow it, read its result."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from .answers import Message, Progress, PromptResult, QueueState
from .connection import Connection
from .errors import AnswerError, ConnectionLostError, PromptError, PromptRefusedError

Graph = dict[str, dict[str, Any]]
# After this much silence the client asks the server whether it still knows the prompt.
SILENCE_SECONDS = 60.0
WAITING = Message(type="waiting", data={})
# The server's last message, sent once it has written the record.
ENDED = Message(type="executing", data={"node": None})


class ComfyClient(Connection):
    """Runs prompts on one server; `output_dir` is its output folder, if visible from here."""

    def __init__(self, url: str, output_dir: Path | None = None) -> None:
        """Store the address; nothing is connected yet."""
        super().__init__(url)
        self.output_dir = output_dir

    def queue_prompt(self, graph: Graph, prompt_id: str | None = None) -> str:
        """Queue a graph and return its prompt id: the UUID `prompt_id`, or a new one.

        Raises PromptRefusedError when the server refuses the graph or a part of it.
        """
        prompt_id = prompt_id or str(uuid.uuid4())
        # The server sends the prompt's messages to the websocket with this id, even a reopened one.
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": prompt_id}
        try:
            answer = json.loads(self.post("/prompt", body))
        except AnswerError as error:
            if error.status != 400:
                raise
            raise PromptRefusedError(_refusal(error.body, graph)) from error
        if answer.get("node_errors"):
            # The server runs the valid outputs, but a part of the graph is not enough.
            self.cancel(answer["prompt_id"])
            raise PromptRefusedError(_refusal(json.dumps(answer), graph))
        return str(answer["prompt_id"])

    def interrupt(self) -> None:
        """Ask the server to stop the prompt that is running."""
        self.post("/interrupt", {})

    def cancel(self, prompt_id: str) -> None:
        """Remove one prompt from the queue, and stop it if it runs. Other prompts continue."""
        self.post("/queue", {"delete": [prompt_id]})
        self.post("/interrupt", {"prompt_id": prompt_id})

    def queue(self) -> QueueState:
        """Fetch which prompts run and which wait."""
        return QueueState.parse(self.get("/queue"))

    def history(self, prompt_id: str) -> PromptResult | None:
        """Fetch the result of a finished prompt; None while the server has no record of it."""
        record = self.get(f"/history/{prompt_id}").get(prompt_id)
        return PromptResult.parse(record, self.output_dir) if record else None

    def messages(self, graph: Graph, prompt_id: str | None = None) -> Iterator[Message]:
        """Queue a graph and yield its messages, up to and including the last.

        They are the server's messages, and one of type "waiting" whenever it is silent; all carry
        the prompt's id. The last is of type "executing" without a node, even after a failure, which
        is not raised. A `prompt_id` that the server knows is not queued again but followed, so
        repeating the call after a lost connection resumes the prompt.

        Raises PromptRefusedError, and ConnectionLostError when the server goes away.
        """
        prompt_id = prompt_id or str(uuid.uuid4())
        with closing(self.listen(f"/ws?clientId={prompt_id}", SILENCE_SECONDS)) as heard:
            # The server first sends a status message; from then on no message is missed.
            if next(heard) is None:
                raise ConnectionLostError(f"{self.url} accepts connections but is silent")
            first = self._standing(prompt_id)
            if first is None:
                prompt_id = self.queue_prompt(graph, prompt_id)
            for each in chain([first or WAITING], heard):
                message = each or self._standing(prompt_id)
                if message is None:
                    raise ConnectionLostError("the server was started anew and lost the prompt")
                data = {"prompt_id": prompt_id, **message["data"]}
                if data["prompt_id"] == prompt_id:
                    yield Message(type=message["type"], data=data)
                    if message["type"] == "executing" and data["node"] is None:
                        return

    def run(
        self,
        graph: Graph,
        on_progress: Callable[[Progress], None] | None = None,
        on_node: Callable[[str], None] | None = None,
        prompt_id: str | None = None,
    ) -> PromptResult:
        """Queue a graph, wait for its end and return its result. Raises PromptError if it failed.

        `on_node` is called with the id of each node as it begins, `on_progress` within nodes.
        See `messages` for `prompt_id` and for the other errors.
        """
        executed: list[str] = []
        for message in self.messages(graph, prompt_id):
            data = message["data"]
            if message["type"] == "executing" and data["node"]:
                executed.append(data["node"])
                if on_node is not None:
                    on_node(data["node"])
            if message["type"] == "progress" and data.get("node") and on_progress is not None:
                on_progress(Progress(str(data["node"]), int(data["value"]), int(data["max"])))
        result = self.history(data["prompt_id"])
        if result is None:
            raise PromptError(f"the server has no record of prompt {data['prompt_id']}")
        _raise_on_failure(result.ending)
        return replace(result, executed=tuple(executed))

    def _standing(self, prompt_id: str) -> Message | None:
        """Fetch a prompt's status: WAITING, ENDED, or None when the server does not know it."""
        queue = self.queue()
        if prompt_id in queue.running + queue.waiting:
            return WAITING
        return ENDED if self.history(prompt_id) else None


def _raise_on_failure(message: Message) -> None:
    data = message["data"]
    if message["type"] == "execution_interrupted":
        raise PromptError(f"interrupted in node {data.get('node_id')} ({data.get('node_type')})")
    if message["type"] == "execution_error":
        said = str(data.get("exception_message", "")).strip()
        trace = "".join(data.get("traceback") or [])
        raise PromptError(f"node {data['node_id']} ({data['node_type']}) failed: {said}", trace)


def _refusal(body: str, graph: Graph) -> str:
    """Describe why the server refused a graph."""
    try:
        answer = json.loads(body)
        refused = [
            (f"node {node_id} ({graph.get(node_id, {}).get('class_type', '?')}): ", error)
            for node_id, entry in (answer.get("node_errors") or {}).items()
            for error in entry.get("errors", [])
        ]
        said = [
            f"{node}{error.get('message', '')} {error.get('details', '')}".strip()
            for node, error in refused or [("", answer["error"])]
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        said = [body.strip()]
    return f"the server refused the prompt: {'; '.join(said)}"
