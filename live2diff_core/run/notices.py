"""What a run tells its user beside its result."""

from __future__ import annotations

import logging
import threading

# Lines shown on a node; the log has all of them.
_MOST_SHOWN = 8


class Notices:
    """Warnings of one run: logged as they come, and kept for its node. Safe to use from threads."""

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()
        self._texts: dict[str, str] = {}

    def warn(self, text: str, key: str = "") -> None:
        """Log and keep a warning.

        Args:
            text: what happened, and what to do about it.
            key: a warning with the same key takes its place, as a count that grows does; it is
                logged only the first time. By default the text itself.
        """
        with self._lock:
            known = (key or text) in self._texts
            self._texts[key or text] = text
        if not known:
            logging.warning("Live2Diff: %s", text)

    @property
    def text(self) -> str:
        """The warnings for the node, one per line; empty without any."""
        with self._lock:
            lines = list(self._texts.values())
        hidden = len(lines) - _MOST_SHOWN
        shown = lines[:_MOST_SHOWN]
        if hidden > 0:
            shown.append(f"{hidden} more warnings are in the log.")
        return "\n".join(f"Warning: {line}" for line in shown)
