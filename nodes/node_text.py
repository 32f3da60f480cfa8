"""Text shown on a node while and after it runs."""

from server import PromptServer


def show_text(node_id: str | None, text: str) -> None:
    """Show `text` on the node in the browser; do nothing without a server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id)
