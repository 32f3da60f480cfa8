"""The channels of all live streams, by name."""

from __future__ import annotations

import threading

from .channel import LiveChannel


class LiveChannels:
    """All channels by name. Safe to use from threads."""

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()
        self._channels: dict[str, LiveChannel] = {}

    def get(self, name: str, keep: bool = False) -> LiveChannel:
        """Return the channel of a stream; make it at its first use.

        Args:
            name: the stream's name.
            keep: keep it, for a node.
        """
        with self._lock:
            channel = self._channels.setdefault(name, LiveChannel(name))
            channel.kept = channel.kept or keep
            return channel

    def tidy(self) -> None:
        """Forget the channels that no node has used, and that nobody follows any more."""
        with self._lock:
            for name, channel in list(self._channels.items()):
                if not channel.kept and not channel.listeners:
                    del self._channels[name]

    def known(self) -> list[LiveChannel]:
        """List the channels that nodes have used."""
        with self._lock:
            return [channel for channel in self._channels.values() if channel.kept]


CHANNELS = LiveChannels()
