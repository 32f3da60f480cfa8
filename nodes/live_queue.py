"""A node's own prompt in the host's queue, and those that wait behind it."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from server import PromptServer


def others_wait() -> bool:
    """Return whether other prompts wait while one runs; never without a server."""
    server = getattr(PromptServer, "instance", None)
    return server is not None and server.prompt_queue.get_tasks_remaining() > 1


def requeue() -> Callable[[], None] | None:
    """Return a call that puts the prompt that runs now at the queue's end once more.

    Any thread may make the call, also when the prompt has ended. None without a server.
    """
    server = getattr(PromptServer, "instance", None)
    if server is None:
        return None
    running, _ = server.prompt_queue.get_current_queue()
    # Hosts differ in what follows the number and the id.
    own = next((item for item in running if item[1] == server.last_prompt_id), running[0])

    def put() -> None:
        number = server.number
        server.number += 1
        server.prompt_queue.put((number, str(uuid.uuid4()), *own[2:]))

    return put
