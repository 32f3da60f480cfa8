"""The folder of one video that is translated: segments, states and, at the end, the result.

| file | what it is |
|---|---|
| `about.json` | the video's name and the identity of the run |
| `segment_*.mp4` | finished pieces of the result |
| `state_N.safetensors` | the state after N frames; the last ones are kept |
| `state_N.mkv` | without loss, the finished pictures behind the last segment of that state |
| `partial.mp4` | what was finished when the run stopped, with sound |
| `result.mp4` | the complete video; all others are gone then |
| `saved` | the prompt that made the result has ended well |
| `*.aside` | what could not be used |
"""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from ..video.output import SUFFIXES, sync_folder
from ..video.segments import list_segments, put_aside
from .folder_access import check_readable, unusable
from .folder_lock import PartialFolderError, holding
from .state_file import (
    load_state,
    save_state,
)
from .written_files import FILES, WrittenFiles

FORMAT = "comfyui-live2diff partial video 1"
ABOUT, SAVED, RESULT = "about.json", "saved", "result"
# Its only state in version 0.1.0.
OLD_STATE = "stream.safetensors"
STATES_KEPT = 2
_PICTURES = ".mkv"
_OURS = (
    "segment_*",
    "state_*",
    f"{OLD_STATE}*",
    "pictures.mkv",
    "unfinished.mp4",
    "partial*",
    f"{RESULT}.*",
    f"{ABOUT}*",
    SAVED,
)


class PartialFolder:
    """One such folder. Only what this pack wrote is ever changed or deleted in it.

    Args:
        path: the folder; it need not exist yet.
        identity: of the run, see `VideoRun.identity`.

    Attributes:
        path: as above.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Touch nothing yet."""
        self.path, self._identity = path, identity
        self._written = WrittenFiles()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder for one run; one that this leaves empty is removed.

        Raises:
            PartialFolderError: another run holds it, or it cannot be used.
        """
        with holding(self.path):
            check_readable(self.path)
            try:
                yield
            finally:
                if self.path.is_dir() and not any(self._files(but=f"{ABOUT}*")):
                    self.remove()

    def create(self, video: str) -> None:
        """Create the folder for the video called `video`, if it is not there.

        Raises:
            PartialFolderError: it cannot be created or used.
        """
        about = self.path / ABOUT
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.path).close()  # Now, not at the first segment.
            for left in self.path.glob("state_*.part"):
                left.unlink()  # Of a run that was killed while it saved.
            if about.exists() and not about.is_file():
                put_aside(about)
            if about.exists():
                self._check_format(about)
                return
            text = json.dumps(
                {"format": FORMAT, "video": video, "identity": dict(self._identity)},
                indent=1,
                default=str,
            )
            part = about.with_name(ABOUT + ".part")
            part.write_text(text, encoding="utf-8")
            part.replace(about)
            sync_folder(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise unusable(self.path, error) from error

    def states(self) -> list[Path]:
        """List the state files, the newest first."""
        found = sorted(self.path.glob("state_*.safetensors"), reverse=True)
        old = self.path / OLD_STATE
        return [*found, old] if old.exists() else found

    @property
    def frames_saved(self) -> int:
        """Frames that had entered at the newest state; 0 without one, or in version 0.1.0."""
        states = self.states()
        number = states[0].stem.removeprefix("state_") if states else ""
        return int(number) if number.isdigit() else 0

    def load(self, state: Path) -> dict[str, Tensor]:
        """Read one of `states`; see `load_state`."""
        return load_state(state, self._identity)

    def changed_file(
        self, state: Path, tensors: Mapping[str, Tensor], segments: list[Path]
    ) -> Path | None:
        """Return the first file, of `segments` and pictures, that a state was not saved with."""
        return self._written.changed(tensors, segments, self.pictures(state))

    @staticmethod
    def pictures(state: Path) -> Path:
        """Return the path of the pictures that belong to a state."""
        return state.with_suffix(_PICTURES)

    def save(
        self, frames: int, tensors: Mapping[str, Tensor], pictures: Path | None = None
    ) -> None:
        """Write the state after `frames` frames, and delete all but the last.

        Args:
            frames: frames that have entered.
            tensors: the state.
            pictures: the file of pictures that belongs to it, which is moved.

        Raises:
            StateFileError: it cannot be written; the states before it still exist, and so do the
                pictures.
        """
        state = self.path / f"state_{frames:09d}.safetensors"
        if pictures is not None:
            pictures.replace(self.pictures(state))
        segments = [segment.path for segment in list_segments(self.path)]
        files = self._written.numbers(segments, self.pictures(state))
        save_state(state, {**tensors, FILES: files}, self._identity)
        self._drop_old_states()
        self._drop_lone_pictures()

    def _drop_old_states(self) -> None:
        """Keep the newest state, and the last two behind whole segments.

        One of a stopped run needs its pictures and the same segments as the one before it. If these
        are damaged, the second of the others is the one to go on from.
        """
        newest, *others = self.states()
        whole = [state for state in (newest, *others) if not self.pictures(state).exists()]
        for old in others:
            if old not in whole[:STATES_KEPT]:
                old.unlink(missing_ok=True)

    def _drop_lone_pictures(self) -> None:
        """Delete pictures whose state is gone, or was never written."""
        for pictures in self.path.glob(f"state_*{_PICTURES}"):
            if not pictures.with_suffix(".safetensors").exists():
                pictures.unlink(missing_ok=True)

    def put_aside(self, state: Path) -> Path:
        """Rename a state that cannot be used, with its pictures; return its new path."""
        if self.pictures(state).exists():
            put_aside(self.pictures(state))
        return put_aside(state)

    def result_path(self, suffix: str) -> Path:
        """Return the path of the complete video, which ends in `suffix`."""
        return self.path / f"{RESULT}{suffix}"

    def result(self) -> Path | None:
        """Return the complete video, if there is one."""
        paths = (self.result_path(suffix) for suffix in SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def finish(self) -> None:
        """Delete all but the result."""
        for path in self._files(but=f"{RESULT}.*"):
            if path.name != ABOUT:
                _delete(path)

    def remove(self) -> None:
        """Delete the folder; files that are not of this pack stay, and the folder with them."""
        for path in self._files():
            _delete(path)
        try:
            self.path.rmdir()
        except OSError as error:
            logging.info("Live2Diff: %s stays: %s.", self.path, error.strerror)

    def _files(self, but: str = "") -> list[Path]:
        """List what this pack wrote; names like `but` are left out."""
        found = {path for pattern in _OURS for path in self.path.glob(pattern)}
        return sorted(path for path in found if not (but and path.match(but)))

    def _check_format(self, about: Path) -> None:
        try:
            found = json.loads(about.read_text(encoding="utf-8"))["format"]
        except (ValueError, LookupError, TypeError):
            put_aside(about)
            return
        if found != FORMAT:
            raise PartialFolderError(
                f"{self.path} was written by another version of this pack ({found!r}, expected "
                f"{FORMAT!r}). Finish the video with that version, or delete the folder."
            )


def _delete(path: Path) -> None:
    # Files that cannot be removed now (because a virus scanner reads them, say) do no harm.
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logging.info("Live2Diff: %s stays: %s.", path, error.strerror)
