"""What can be changed while a stream runs, and the values that each change may have."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MOST_CHARACTERS = 4000
MOST_BLEND = 1000
LARGEST_SEED = 2**64 - 1


class ControlError(ValueError):
    """A change that cannot be made.

    Attributes:
        code: see the live page's protocol.
        remedy: what to do instead.
    """

    def __init__(self, code: str, message: str, remedy: str) -> None:
        """Say what is wrong, and what to do."""
        super().__init__(message)
        self.code, self.remedy = code, remedy


@dataclass(frozen=True)
class Change:
    """A setting's next value.

    Attributes:
        control: name of the setting, a key of `CONTROLS`.
        value: a JSON value that `checked` accepted.
        id: what the asker calls it; a JSON value.
    """

    control: str
    value: Any
    id: Any = None


class PendingChanges:
    """The newest value of each setting until the next frame. Safe to use from threads."""

    def __init__(self) -> None:
        """Start without any."""
        self._lock = threading.Lock()
        self._changes: dict[str, Change] = {}

    def put(self, change: Change) -> None:
        """Store a change in place of an earlier one of the same setting."""
        with self._lock:
            self._changes[change.control] = change

    def take(self) -> list[Change]:
        """Take all changes, in the order of `CONTROLS`."""
        with self._lock:
            changes, self._changes = self._changes, {}
        return [changes[name] for name in CONTROLS if name in changes]

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._changes)


def checked(control: object, value: object) -> Any:
    """Check a value and return it in the form that is used and recorded.

    Raises:
        ControlError: there is no such setting, or the value is out of range.
    """
    if not isinstance(control, str) or control not in CONTROLS:
        known = ", ".join(CONTROLS)
        raise ControlError("message", f"There is no setting {control!r:.40}.", f"Known: {known}.")
    return CONTROLS[control](control, value)


def _prompt(name: str, value: object) -> dict[str, Any]:
    given = value if isinstance(value, Mapping) else {}
    text, blend = given.get("text"), given.get("blend", 0)
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
        raise _out_of_range(name, f'{{"text": …}} of at most {MOST_CHARACTERS} characters')
    if type(blend) is not int or not 0 <= blend <= MOST_BLEND:
        raise _out_of_range(name, f'"blend" from 0 to {MOST_BLEND} frames')
    return {"text": text, "blend": blend}


def _number(least: float, most: float, whole: bool = False) -> Callable[[str, object], Any]:
    def check(name: str, value: object) -> Any:
        right = isinstance(value, int | float) and not isinstance(value, bool)
        if not right or not math.isfinite(value) or not least <= value <= most:  # type: ignore
            raise _out_of_range(name, f"a number from {least:g} to {most:g}")
        if whole and value != int(value):  # type: ignore
            raise _out_of_range(name, "a whole number")
        return int(value) if whole else float(value)  # type: ignore

    return check


def _seed(name: str, value: object) -> str:
    text = value if isinstance(value, str) else str(value) if type(value) is int else ""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= LARGEST_SEED):
        raise _out_of_range(name, f"digits, up to {LARGEST_SEED}")
    # As text, because a JSON number in a browser has 53 bits.
    return str(int(text))


def _cut(name: str, value: object) -> bool:
    if value is not True:
        raise _out_of_range(name, "true")
    return True


def _out_of_range(name: str, expected: str) -> ControlError:
    return ControlError("value", f"{name} has a value that it cannot have.", f"Give it {expected}.")


# In the order in which changes of one frame are made.
CONTROLS: dict[str, Callable[[str, object], Any]] = {
    "prompt": _prompt,
    "negative": _prompt,
    "cfg": _number(0, 30),
    "threshold": _number(0, 1),
    "steps": _number(1, 50, whole=True),
    "denoise": _number(0.01, 1),
    "seed": _seed,
    "cut": _cut,
}
