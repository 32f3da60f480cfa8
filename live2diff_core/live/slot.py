"""A place for one item, in which a newer one replaces an older one: nothing ever queues."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")


class NewestSlot(Generic[Item]):
    """Holds the newest item until it is taken. Safe to use from threads."""

    def __init__(self) -> None:
        """Start empty."""
        self._changed = threading.Condition()
        self._item: Item | None = None

    def put(self, item: Item) -> Item | None:
        """Store an item; return the one that it replaces, which nobody has taken."""
        with self._changed:
            replaced, self._item = self._item, item
            self._changed.notify()
        return replaced

    def take(self, seconds: float = 0.0) -> Item | None:
        """Take the item out; wait for one for at most `seconds`, then return None."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None, seconds)
            item, self._item = self._item, None
        return item
