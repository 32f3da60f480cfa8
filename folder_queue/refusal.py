"""Why a server refuses a graph, as its answer to POST /prompt says."""

from __future__ import annotations

from typing import Any

from .answers import as_list, as_object, parse_json
from .errors import NonsenseError, PromptRefusedError, words

_WHERE = "/prompt"


def refusal(answer: dict[str, Any], graph: dict[str, dict[str, Any]]) -> PromptRefusedError | None:
    """Return the refusal in an answer to POST /prompt; None if the graph was accepted.

    A graph that is refused in part is refused: the answer is then no error, but names the nodes.
    Raises NonsenseError for what is neither.
    """
    nodes = as_object(_WHERE, answer.get("node_errors") or {})
    said = [
        f"node {node_id} ({graph.get(node_id, {}).get('class_type', '?')}): {_text(error)}"
        for node_id, entry in nodes.items()
        for error in as_list(_WHERE, as_object(_WHERE, entry).get("errors"))
    ]
    if not said and "error" in answer:
        said = [_text(answer["error"])]
    if not said:
        return None
    return PromptRefusedError(f"the server refused the prompt: {'; '.join(said)}", frozenset(nodes))


def refusal_in_body(body: str, graph: dict[str, dict[str, Any]]) -> PromptRefusedError | None:
    """Return the refusal in the body of an error; None if it is another's, as that of a proxy."""
    try:
        return refusal(as_object(_WHERE, parse_json(_WHERE, body)), graph)
    except NonsenseError:
        return None


def _text(error: Any) -> str:
    said = as_object(_WHERE, error)
    return f"{words(said.get('message', ''))} {words(said.get('details', ''))}".strip()
