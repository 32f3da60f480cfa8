"""What the tools say to a person, and how they fail: one clear line, no traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


class ToolError(RuntimeError):
    """A failure that a person can do something about; its text is one line that says what."""


def say(text: str = "") -> None:
    """Write one line to standard output, at once, so that it interleaves with child processes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run_main(main: Callable[[], int]) -> int:
    """Call `main()` and turn a ToolError or Ctrl-C into one line and an exit status.

    A request to terminate unwinds like Ctrl-C, so that servers are stopped on the way out.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return main()
    except ToolError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130
