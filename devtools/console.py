"""Output of the tools, and their failures: one clear line, no traceback."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


class ToolError(RuntimeError):
    """A failure that the user can fix; its text is one line that says how."""


def say(text: str = "") -> None:
    """Write one line to standard output and flush it, so that child processes' lines follow it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run_main(main: Callable[[], int]) -> int:
    """Call `main()` and turn a ToolError or Ctrl-C into one line and an exit status.

    SIGTERM unwinds the stack like Ctrl-C, so that servers are stopped on the way out.
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
