"""Tells of two graphs that use one live stream with different settings, and start it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Graphs that may take turns.
_MOST_KEPT = 4

# The identity of a stream, and its prompt where that is the reason for starting over.
Settings = tuple[Mapping[str, Any], str]


@dataclass(frozen=True)
class StartsOver:
    """How a live stream was started over: a value that the new stream takes on from the old one.

    Attributes:
        earlier: settings that streams of its name have had, the last ones first.
        returns: how often earlier settings came back.
    """

    earlier: tuple[Settings, ...] = ()
    returns: int = 0

    def then(self, before: Settings, now: Settings) -> StartsOver:
        """Return the value after a change of settings from `before` to `now`."""
        others = tuple(settings for settings in self.earlier if settings != before)
        return StartsOver((before, *others)[:_MOST_KEPT], self.returns + (now in self.earlier))

    def warning(self, name: str, reason: str) -> str:
        """Return what to tell the user of the stream `name`, last started over for `reason`."""
        times = "once" if self.returns == 1 else f"{self.returns} times"
        return (
            f"the stream '{name}' was started over with settings that it had had before, "
            f"{times} so far, now because of this: {reason}. If two graphs or nodes use the name "
            f"'{name}', each throws away the other's stream: give them different stream names."
        )
