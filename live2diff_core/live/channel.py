"""Where a stream's run meets whoever watches it, feeds it and changes it."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .controls import CONTROLS, Change, ControlError, PendingChanges
from .figures import Figures
from .frames import LiveFrame, LiveResult
from .sizing import LiveSize
from .slot import NewestSlot

if TYPE_CHECKING:
    from .settings import LiveSettings

WAITING, STARTING, RUNNING = "waiting", "starting", "running"
PAUSED, STOPPED = "paused", "stopped"
COMMANDS = ("pause", "resume", "stop", "finish", "start", "record", "stop recording")
_MOST_COMMANDS = 16
_MOST_WARNINGS = 4


class Listener(Protocol):
    """Whoever follows a stream; called by the thread that runs it, and must not wait."""

    def show(self, result: LiveResult) -> None:
        """Take the next picture."""

    def tell(self, message: Mapping[str, Any]) -> None:
        """Take a message of the live page's protocol."""


class Command(NamedTuple):
    """What a listener asks of a run: its name, what the asker calls it, and the asker."""

    name: str
    id: Any
    asker: Listener


class LiveChannel:
    """One stream's meeting place; it outlasts the runs of its node. Safe to use from threads.

    Attributes:
        name: the stream's name.
        slot: the frame that the run takes next.
        pending: changes that the next frame brings.
        figures: of the present run or the last one.
        latest: the last result; None before the first.
        start_again: queues the stream's last prompt once more; None before the first run.
        session: differs for each run; empty before the first.
        source: where the frames come from, in words.
        kept: whether a node has used it.
    """

    def __init__(self, name: str) -> None:
        """Wait for a run."""
        self.name = name
        self.slot: NewestSlot[LiveFrame] = NewestSlot()
        self.pending = PendingChanges()
        self.figures = Figures()
        self.start_again: Callable[[], None] | None = None
        self.latest: LiveResult | None = None
        self.session, self.source, self.kept = "", "", False
        self._lock = threading.RLock()
        self._listeners: list[Listener] = []
        self._commands: deque[Command] = deque()
        self._sender: Listener | None = None
        self._state, self._size = WAITING, LiveSize("fill", 512, 512)
        self._settings: LiveSettings | None = None
        self._unavailable: Mapping[str, str] = {}

    # The run's side

    def begin(
        self,
        settings: LiveSettings,
        size: LiveSize,
        source: str,
        unavailable: Mapping[str, str],
    ) -> None:
        """Start a run.

        Args:
            settings: its settings.
            size: brings frames to the stream's size.
            source: where its frames come from, in words.
            unavailable: the settings that cannot be changed, with the remedy.
        """
        with self._lock:
            self._empty()
            self.session, self.source = secrets.token_hex(4), source
            self.figures = Figures()
            self._size, self._unavailable = size, unavailable
        self.use(settings)
        self.move(STARTING)
        self.tell(self.settings_message())

    def use(self, settings: LiveSettings) -> None:
        """Remember the settings that hold now."""
        self._settings = settings

    def move(self, state: str) -> None:
        """Go to another state."""
        if state != self._state:
            self._state = state
            self.tell({"state": state})

    def end(self, error: str = "", again: bool = False) -> None:
        """End a run.

        Args:
            error: what ended it, if that was an error.
            again: whether it waits in the queue to go on.
        """
        with self._lock:
            self._empty()
            waiting, self._commands = list(self._commands), deque()
        self.pending.take()
        self.move(WAITING if again else STOPPED)
        for command in waiting:
            refuse(command, ControlError("unavailable", "The stream was stopped.", "Start it."))
        if error:
            remedy = "Look at the node in the graph, and queue it again."
            self.tell({"error": error, "code": "failed", "remedy": remedy})

    def publish(self, result: LiveResult) -> None:
        """Give a picture to all who follow."""
        if not result.warming_up:
            self.latest = result
        for listener in self._present():
            listener.show(result)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Give a message to all who follow."""
        for listener in self._present():
            listener.tell(message)

    def warn(self, text: str) -> None:
        """Tell all who follow what went wrong, though the stream goes on."""
        logging.warning("Live2Diff: %s", text)
        warnings = self.figures.warnings
        self.figures.warnings = [*warnings[1 - _MOST_WARNINGS :], f"Warning: {text}"]
        remedy = "The stream itself goes on."
        self.tell({"error": text, "code": "output", "remedy": remedy})

    def next_command(self) -> Command | None:
        """Take the oldest command."""
        with self._lock:
            return self._commands.popleft() if self._commands else None

    # The side of those who follow

    @property
    def state(self) -> str:
        """What the run does."""
        return self._state

    @property
    def size(self) -> LiveSize:
        """Brings frames to the stream's size; safe to use from any thread."""
        return self._size

    @property
    def listeners(self) -> int:
        """How many follow."""
        return len(self._listeners)

    @property
    def has_sender(self) -> bool:
        """Whether somebody sends frames."""
        return self._sender is not None

    def join(self, listener: Listener) -> None:
        """Follow the stream."""
        with self._lock:
            self._listeners.append(listener)

    def leave(self, listener: Listener) -> None:
        """Follow it no longer."""
        with self._lock:
            self._listeners.remove(listener)
            self.release(listener)

    def claim(self, listener: Listener) -> bool:
        """Become the one sender; return False where there is another."""
        with self._lock:
            if self._sender is None:
                self._sender = listener
            return self._sender is listener

    def release(self, listener: Listener) -> None:
        """Let another one send."""
        with self._lock:
            if self._sender is listener:
                self._sender = None

    def offer(self, frame: LiveFrame) -> None:
        """Hand in a frame, which a newer one may replace before the model takes it."""
        with self._lock:
            if self._state not in (STARTING, RUNNING):
                frame.count.drop()
                return
            replaced = self.slot.put(frame)
        self.figures.fps_in()
        if replaced is not None:
            self.drop(replaced)

    def drop(self, frame: LiveFrame) -> None:
        """Count a frame that the model never sees."""
        frame.count.drop()
        self.figures.replaced += 1

    def change(self, change: Change) -> None:
        """Ask for a change at the next frame.

        Raises:
            ControlError: it cannot be made now.
        """
        if self._state not in (STARTING, RUNNING, PAUSED):
            raise ControlError("unavailable", "The stream does not run.", "Start it first.")
        if remedy := self._unavailable.get(change.control):
            raise ControlError("unavailable", f"'{change.control}' cannot be changed.", remedy)
        self.pending.put(change)

    def command(self, command: Command) -> None:
        """Ask something of the run, or start it.

        Raises:
            ControlError: it cannot be done now.
        """
        running = self._state in (STARTING, RUNNING, PAUSED)
        if command.name == "start":
            if running or self.start_again is None:
                now = "It runs already." if running else "It has not run yet."
                raise ControlError("unavailable", now, "Queue the graph in ComfyUI.")
            self.start_again()
            command.asker.tell({"done": command.name, "id": command.id})
            return
        if not running:
            raise ControlError("unavailable", "The stream does not run.", "Start it first.")
        with self._lock:
            if len(self._commands) >= _MOST_COMMANDS:
                raise ControlError("unavailable", "Too many commands wait.", "Wait a moment.")
            self._commands.append(command)

    def settings_message(self) -> dict[str, Any]:
        """Return the values of all settings, and which can be changed."""
        settings, found = self._settings, {}
        for name in CONTROLS:
            remedy = self._unavailable.get(name)
            value = None if settings is None else settings.value(name)
            available = settings is not None and remedy is None
            found[name] = {"value": value, "available": available}
            if remedy:
                found[name]["remedy"] = remedy
        return {"settings": found}

    def _present(self) -> list[Listener]:
        with self._lock:
            return list(self._listeners)

    def _empty(self) -> None:
        """Drop the frame that waits."""
        if (left := self.slot.take()) is not None:
            self.drop(left)


def refuse(command: Command, error: ControlError) -> None:
    """Answer a command that could not be done."""
    answer = {"error": str(error), "code": error.code, "remedy": error.remedy, "id": command.id}
    command.asker.tell(answer)
