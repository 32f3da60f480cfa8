"""Exceptions of a run on a server, one for each remedy."""

from __future__ import annotations


class PromptError(RuntimeError):
    """A prompt was refused or failed; the text names the nodes and quotes their errors.

    `traceback` is the failing node's own, as the server printed it, or "".
    """

    def __init__(self, text: str, traceback: str = "") -> None:
        """Store the server's error and traceback."""
        super().__init__(text)
        self.traceback = traceback


class AnswerError(PromptError):
    """The server answered a request with an error, of HTTP `status` and `body`."""

    def __init__(self, path: str, status: int, body: str) -> None:
        """Store the answer."""
        super().__init__(f"the server answered {path} with {status}: {body.strip()[:300]}")
        self.status = status
        self.body = body


class PromptRefusedError(PromptError):
    """The server refused the graph; it would refuse it for the next video, too."""


class UploadRefusedError(PromptError):
    """The server refused this video; a retry would fail in the same way."""


class ConnectionLostError(PromptError):
    """The server does not answer; it may come back."""


class ServerGoneError(PromptError):
    """The server did not come back in the allowed time."""


class UsageError(ValueError):
    """The command cannot be run as given; the text is one line that says what to change."""
