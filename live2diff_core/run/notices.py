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

    def warn(self, text: str, key: str = "", first: bool = False) -> None:
        """Log and keep a warning.

        Args:
            text: what happened, and what to do about it.
            key: a warning with the same key takes its place, as a count that grows does; it is
                logged only the first time. By default the text itself.
            first: put it before those that there are: a node shows some only.
        """
        if self.keep(text, key, first):
            logging.warning("Live2Diff: %s", text)

    def keep(self, text: str, key: str = "", first: bool = False) -> bool:
        """Keep a warning that is logged elsewhere; return whether its key is new. See `warn`."""
        with self._lock:
            new = (key or text) not in self._texts
            self._texts[key or text] = text
            if first:
                self._texts = {key or text: text, **self._texts}
        return new

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

    def below(self, text: str) -> str:
        """Return `text` with the warnings below it, one per line."""
        return "\n".join(part for part in (text, self.text) if part)
