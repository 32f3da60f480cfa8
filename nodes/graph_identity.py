"""Names what a node's inputs are made from, by the graph itself.

Patches that other packs put on a MODEL keep their settings to themselves; the graph has them all.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any


def upstream_identity(
    prompt: Mapping[str, Any] | None, node_id: str | None, without: Collection[str] = ()
) -> str:
    """Name all nodes, with their settings, that a node's linked inputs come from.

    Args:
        prompt: the graph in API format, as the host hands it to nodes; None when it does not.
        node_id: the node.
        without: inputs that do not count.

    Returns:
        16 hex digits that do not depend on the numbers of nodes; "unknown" without a graph.
    """
    if not prompt or node_id not in prompt:
        return "unknown"
    seen: dict[str, str] = {}
    inputs = {
        name: _value(prompt, value, seen)
        for name, value in prompt[node_id].get("inputs", {}).items()
        if name not in without and _is_link(prompt, value)
    }
    return _digest(inputs)


def _value(prompt: Mapping[str, Any], value: Any, seen: dict[str, str]) -> Any:
    """An input's value; of a link the name of where it comes from."""
    if not _is_link(prompt, value):
        return value
    source, output = value
    if source not in seen:
        seen[source] = "a loop"  # The host refuses loops; this only ends them.
        node = prompt[source]
        inputs = {k: _value(prompt, v, seen) for k, v in node.get("inputs", {}).items()}
        seen[source] = _digest([node.get("class_type"), inputs])
    return [seen[source], output]


def _is_link(prompt: Mapping[str, Any], value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and value[0] in prompt
    )


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
