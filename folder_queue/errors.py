"""Exceptions of a run on a server, one for each remedy."""

from __future__ import annotations

import reprlib
from typing import Any

# Quotes any JSON value in at most about a line.
_QUOTE = reprlib.Repr()
_QUOTE.maxlevel, _QUOTE.maxdict, _QUOTE.maxlist, _QUOTE.maxstring = 2, 3, 3, 80


def words(value: Any) -> str:
    """Return a text as it is, and any other JSON value as a quotation of it."""
    return value if isinstance(value, str) else _QUOTE.repr(value)


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


class NonsenseError(PromptError):
    """The server answered with something that ComfyUI never says; the text quotes it."""

    def __init__(self, where: str, expected: str, got: Any) -> None:
        """Store what was expected of the answer at `where`, and the beginning of what came."""
        super().__init__(
            f"the server answered {where} with {_QUOTE.repr(got)} instead of {expected}; "
            "is it a ComfyUI?"
        )


class PromptRefusedError(PromptError):
    """The server refused the graph; it would refuse it for the next video, too.

    `nodes` holds the ids of the nodes that it found wrong, if it named any.
    """

    def __init__(self, text: str, nodes: frozenset[str] = frozenset()) -> None:
        """Store the server's reasons and the nodes."""
        super().__init__(text)
        self.nodes = nodes


class UploadRefusedError(PromptError):
    """The server refused this video; a retry would fail in the same way."""


class ConnectionLostError(PromptError):
    """The server does not answer; it may come back."""


class SilentError(ConnectionLostError):
    """The server took a request, or a connection, and sent no answer in the allowed time."""


class ServerGoneError(PromptError):
    """The server did not come back in the allowed time."""


class UsageError(ValueError):
    """The command cannot be run as given; the text is one line that says what to change."""


class LedgerError(UsageError):
    """The ledger cannot be read or written."""
