"""A client of a running ComfyUI: queue an API-format graph, follow it, read its result."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from .answers import (
    Failure,
    Message,
    Progress,
    PromptResult,
    QueueState,
    as_object,
    parse_json,
)
from .connection import Connection
from .errors import AnswerError, ConnectionLostError, NonsenseError, PromptError, SilentError
from .refusal import refusal, refusal_in_body

Graph = dict[str, dict[str, Any]]
# The server greets at once, unless it loads a model or the like.
GREETING_SECONDS = 15.0
# After this much silence the client asks the server whether it still knows the prompt.
SILENCE_SECONDS = 60.0
WAITING = Message(type="waiting", data={})
# The server's last message, sent once it has written the record.
ENDED = Message(type="executing", data={"node": None})


class ComfyClient(Connection):
    """Runs prompts on one server; `output_dir` is its output folder, if visible from here."""

    def __init__(
        self,
        url: str,
        output_dir: Path | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Store the address; nothing is connected yet."""
        super().__init__(url, sleep)
        self.output_dir = output_dir

    def queue_prompt(self, graph: Graph, prompt_id: str | None = None) -> str:
        """Queue a graph and return its prompt id: the UUID `prompt_id`, or a new one.

        Raises PromptRefusedError when the server refuses the graph or a part of it.
        """
        prompt_id = prompt_id or str(uuid.uuid4())
        # The server sends the prompt's messages to the websocket with this id, even a reopened one.
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": prompt_id}
        try:
            answer = as_object("/prompt", parse_json("/prompt", self.post("/prompt", body)))
        except AnswerError as error:
            refused = refusal_in_body(error.body, graph) if error.status == 400 else None
            if refused is None:
                raise
            raise refused from error
        if refused := refusal(answer, graph):
            # The server runs the valid outputs, but a part of the graph is not enough.
            self.cancel(prompt_id)
            raise refused
        if answer.get("prompt_id") != prompt_id:
            raise NonsenseError("/prompt", "the prompt's id", answer)
        return prompt_id

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
        path = f"/history/{prompt_id}"
        records = as_object(path, self.get(path))
        if prompt_id not in records:
            return None
        return PromptResult.parse(records[prompt_id], self.output_dir)

    def messages(self, graph: Graph, prompt_id: str | None = None) -> Iterator[Message]:
        """Queue a graph and yield its messages, up to and including the last.

        They are the server's messages about the prompt, and one of type "waiting" whenever it says
        nothing of it for long; all carry the prompt's id. The last is of type "executing" without a
        node, even after a failure, which is not raised. A `prompt_id` that the server knows is not
        queued again but followed, so repeating the call after a lost connection resumes the prompt.

        Raises PromptRefusedError, ConnectionLostError when the server goes away, and other
        PromptErrors for what it should not have answered.
        """
        prompt_id = prompt_id or str(uuid.uuid4())
        path, greeting = f"/ws?clientId={prompt_id}", min(GREETING_SECONDS, SILENCE_SECONDS)
        with closing(self.listen(path, SILENCE_SECONDS, greeting)) as heard:
            # The server first sends a status message; from then on no message is missed.
            if next(heard) is None:
                raise SilentError(f"{self.url} accepts connections but is silent")
            first = self._standing(prompt_id) or self._begin(graph, prompt_id)
            for message in chain([first], self._about(prompt_id, heard)):
                data = {**message["data"], "prompt_id": prompt_id}
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
            progress = Progress.parse(data) if message["type"] == "progress" else None
            if progress is not None and on_progress is not None:
                on_progress(progress)
        result = self.history(data["prompt_id"])
        if result is None:
            raise PromptError(f"the server has no record of prompt {data['prompt_id']}")
        if failure := Failure.parse(result.ending):
            raise PromptError(failure.text, failure.traceback)
        return replace(result, executed=tuple(executed))

    def _begin(self, graph: Graph, prompt_id: str) -> Message:
        """Queue a prompt and make sure that the server knows it from then on."""
        self.queue_prompt(graph, prompt_id)
        if self._standing(prompt_id) is None:
            raise PromptError(
                "the server took the prompt, but neither its queue nor its history has it"
            )
        return WAITING

    def _about(self, prompt_id: str, heard: Iterable[Message | None]) -> Iterator[Message]:
        """Yield the messages of one prompt, and its status when they cease for long.

        What else the server says, and it may never be silent, is left out.
        """
        since = time.monotonic()
        for message in heard:
            if message is not None and message["data"].get("prompt_id", prompt_id) == prompt_id:
                since = time.monotonic()
                yield message
            elif message is None or time.monotonic() - since > SILENCE_SECONDS:
                status = self._standing(prompt_id)
                if status is None:
                    raise ConnectionLostError("the server was started anew and lost the prompt")
                since = time.monotonic()
                yield status

    def _standing(self, prompt_id: str) -> Message | None:
        """Fetch a prompt's status: WAITING, ENDED, or None when the server does not know it."""
        queue = self.queue()
        if prompt_id in queue.running + queue.waiting:
            return WAITING
        return ENDED if self.history(prompt_id) else None
