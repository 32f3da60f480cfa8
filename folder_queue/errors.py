"""What can go wrong on a server, by what to do about it."""

from __future__ import annotations


class PromptError(RuntimeError):
    """A prompt that was refused or failed; the text names the nodes and says what they said.

    `traceback` is the failing node's own, as the server printed it, or "".
    """

    def __init__(self, text: str, traceback: str = "") -> None:
        """Keep what the server said."""
        super().__init__(text)
        self.traceback = traceback


class AnswerError(PromptError):
    """The answer to a request is an error: its HTTP `status` and its `body`."""

    def __init__(self, path: str, status: int, body: str) -> None:
        """Keep the answer."""
        super().__init__(f"the server answered {path} with {status}: {body.strip()[:300]}")
        self.status = status
        self.body = body


class PromptRefusedError(PromptError):
    """The server did not take the graph; it would not take it for the next video either."""


class UploadRefusedError(PromptError):
    """The server did not take this video; another try would end the same."""


class ConnectionLostError(PromptError):
    """The server does not answer; it may come back."""


class ServerGoneError(PromptError):
    """The server did not come back in the time it was given."""


class UsageError(ValueError):
    """What a person asked for cannot be done; the text is one line that says what to change."""
