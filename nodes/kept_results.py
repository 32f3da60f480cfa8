"""Results of Stream Video, kept until the prompts that made them have ended well.

The host empties its temporary folder when it starts. A result that no node could save (because the
disk was full, say) must outlive that, so it stays in its partial folder.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

import folder_paths
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..live2diff_core.run.folder_lock import PartialFolderError
from ..live2diff_core.run.partial_folder import SAVED
from ..live2diff_core.run.partial_folders import (
    PARTIAL_FOLDER,
    PartialLimits,
    apply_limits,
    remove_saved,
)
from .settings import setting

_POLL_SECONDS = 1.0


def output_folder() -> Path:
    """Return ComfyUI's output folder, which also holds partial results."""
    return Path(folder_paths.get_output_directory())


def partial_root() -> Path:
    """Return the folder of all partial results."""
    return output_folder() / PARTIAL_FOLDER


def partial_limits() -> PartialLimits:
    """Return the limits that ComfyUI's settings name."""
    default = PartialLimits()
    return PartialLimits(
        setting("Live2Diff.PartialDays", default.days),
        setting("Live2Diff.PartialGigabytes", default.gigabytes),
    )


def ended_well(prompt_id: str) -> bool | None:
    """Return how a prompt has ended by the host's history; None if it has not."""
    history = PromptServer.instance.prompt_queue.get_history(prompt_id=prompt_id)
    status = (history.get(prompt_id) or {}).get("status")
    return None if not status else status.get("status_str") == "success"


class KeptResults:
    """The results of this process: which VIDEOs still use them, and which wait for their prompt.

    Args:
        ended: see `ended_well`.
    """

    def __init__(self, ended: Callable[[str], bool | None] = ended_well) -> None:
        """Start without results."""
        self._ended, self._lock = ended, threading.Lock()
        # The host's cache keeps VIDEOs for later prompts, which read the same files.
        self._videos: dict[Path, weakref.WeakSet] = {}
        self._waiting: dict[str, set[Path]] = {}
        self._watching = False

    def keep(self, path: Path, video: object) -> None:
        """Keep a result while `video` exists, and until the prompt that runs now has ended well."""
        context = get_executing_context()
        (path.parent / SAVED).unlink(missing_ok=True)
        with self._lock:
            self._videos.setdefault(path, weakref.WeakSet()).add(video)
            if context is None:
                return
            self._waiting.setdefault(context.prompt_id, set()).add(path)
            if not self._watching:
                self._watching = True
                threading.Thread(target=self._watch, name="live2diff-results", daemon=True).start()

    def sweep(self) -> None:
        """Delete the results that were saved and are not used."""
        self._look()
        remove_saved(partial_root(), self.used())

    def limit(self) -> None:
        """Delete what is beyond the limits; not before a run that could go on with it."""
        try:
            apply_limits(partial_root(), partial_limits(), self.used())
        except PartialFolderError as error:  # A finished video is not to fail by it.
            logging.warning("Live2Diff: the limits of partial results are not kept: %s", error)

    def used(self) -> set[Path]:
        """Return the results that must stay: a VIDEO refers to them, or their prompt still runs."""
        with self._lock:
            self._videos = {path: videos for path, videos in self._videos.items() if len(videos)}
            return set(self._videos).union(*self._waiting.values())

    def _watch(self) -> None:
        """Wait for the prompts to end: the server may be stopped soon after."""
        while self._look():
            threading.Event().wait(_POLL_SECONDS)

    def _look(self) -> bool:
        """Mark the results whose prompt has ended well; return whether to look again."""
        with self._lock:
            for prompt_id in list(self._waiting):
                well = self._ended(prompt_id)
                if well is not None:
                    _settle(self._waiting.pop(prompt_id), well)
            self._watching = bool(self._waiting)
            return self._watching


def _settle(results: Iterable[Path], well: bool) -> None:
    """Mark the results of a prompt that has ended well; name those of one that failed."""
    for path in results:
        if not well:
            logging.warning(
                "Live2Diff: the prompt failed, and its finished video is kept: %s. Queue the same "
                "inputs again to save it.",
                path,
            )
            continue
        try:
            (path.parent / SAVED).touch()
        except OSError as error:
            logging.info("Live2Diff: %s cannot be marked: %s.", path, error.strerror)


RESULTS = KeptResults()
