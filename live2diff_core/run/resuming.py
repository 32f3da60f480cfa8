"""How a stopped run of a video goes on, and what it leaves for the next one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from ..video.segments import Segment
from ..video.unfinished import DamagedPicturesError, count_pictures, read_pictures
from .notices import Notices
from .partial_folder import PartialFolder
from .shown import Shown, shown_from, shown_numbers
from .stages import VideoTranslation
from .state_file import StateFileError, UnusableStateError, damaged

_UNFINISHED = "unfinished"


class VideoResumption:
    """Restores a run from its folder, and saves it there when it stops.

    Args:
        folder: the run's, held.
        translation: the run, which has not begun.
        notices: told of what could not be used, and where the run stopped.
        assemble: joins segments to a playable file.
        suffix: of that file.
    """

    def __init__(
        self,
        folder: PartialFolder,
        translation: VideoTranslation,
        notices: Notices,
        assemble: Callable[[Path, Sequence[Segment]], None],
        suffix: str,
    ) -> None:
        """Read nothing yet."""
        self._folder, self._translation, self._notices = folder, translation, notices
        self._assemble, self._suffix = assemble, suffix
        self._resumed_at = 0

    def resume(self) -> int:
        """Restore the run from the newest state that can be used.

        Only what is proven to be damaged costs anything, and it is put aside, not deleted.

        Returns:
            The first frame to read.

        Raises:
            StateFileError, OSError: a file cannot be read; nothing has been changed.
        """
        states = self._folder.states()
        for state in states:
            reason = self._try(state)
            if not reason:
                break
            aside = self._folder.put_aside(state)
            self._notices.warn(
                f"A saved state cannot be used: {reason} It is kept as {aside} until the video is "
                "complete."
            )
        else:
            self._start_over(bool(states))
        self._tell_of_segments()
        self._resumed_at = self._translation.translator.frames_in
        if self._resumed_at:
            logging.info("Live2Diff: going on at frame %d.", self._resumed_at)
        return self._resumed_at

    def _try(self, state: Path) -> str:
        """Restore the run from a state; return why that cannot be, or an empty text."""
        translation, writer = self._translation, self._translation.writer
        if state.is_dir():
            return f"{state.name} is a folder."
        try:
            tensors = self._folder.load(state)
            translation.load_state_dict(tensors)
            shown = shown_from(tensors, _UNFINISHED) if _UNFINISHED in tensors else []
        except (ValueError, LookupError, TypeError) as error:
            if isinstance(error, StateFileError) and not isinstance(error, UnusableStateError):
                raise  # It may be read another time.
            known = isinstance(error, UnusableStateError)
            return f"{error if known else damaged(state, error)}"
        first = translation.frames_finished - translation.frames_unwritten - len(shown)
        if first and first not in [segment.stop_frame for segment in writer.segments]:
            return f"{state.name} needs the first {first} frames, and some are missing or damaged."
        needed = [segment.path for segment in writer.segments if segment.stop_frame <= first]
        changed = self._folder.changed_file(state, tensors, needed)
        if changed is not None:
            return f"{changed.name} is not what it was when {state.name} was saved."
        pictures = self._folder.pictures(state)
        if shown and (not pictures.exists() or count_pictures(pictures) < len(shown)):
            return f"the pictures that belong to {state.name} are missing or damaged."
        writer.keep_until(first)
        return self._write_again(pictures, shown)

    def _write_again(self, pictures: Path, shown: Sequence[Shown]) -> str:
        """Encode the pictures of the unfinished segment anew; return why that cannot be."""
        writer = self._translation.writer
        try:
            for image, when in zip(read_pictures(pictures) if shown else (), shown, strict=False):
                writer.write(image, *when)
        except DamagedPicturesError as error:
            writer.abandon()
            return f"{error}"
        if len(writer.unfinished) != len(shown):
            writer.abandon()
            return f"{pictures.name} holds fewer pictures than it should."
        return ""

    def _start_over(self, had_states: bool) -> None:
        translation, writer = self._translation, self._translation.writer
        translation.restart()
        frames = writer.frames_safe
        writer.keep_until(0)
        if frames and not had_states:
            self._notices.warn(
                f"The video begins anew: {frames} frames are finished, but the state of the stream "
                f"behind them was not saved, or is missing."
            )
        elif had_states:
            self._notices.warn("The video begins anew: no saved state can be used.")

    def _tell_of_segments(self) -> None:
        aside = self._translation.writer.set_aside
        if aside:
            self._notices.warn(
                f"{len(aside)} finished parts cannot be used, and are made anew; they are kept in "
                f"{self._folder.path} as *.aside until the video is complete."
            )

    def stop(self) -> None:
        """Save the run where it is, and join what is finished to a playable file.

        It is called while an error is raised, and raises none of its own.
        """
        frames, unfinished = self._translation.frames_finished, None
        try:
            unfinished = self._translation.writer.pause()
        except Exception as error:
            self._notices.warn(f"the unfinished part cannot be written: {error}")
        reason = self._save()
        if not frames and reason:
            return
        segments = [*self._translation.writer.segments, *([unfinished] if unfinished else [])]
        joined = self._join(segments)
        said = [f"stopped after {frames} finished frames."]
        if joined is not None:
            held = "They" if segments[-1].stop_frame == frames else f"{segments[-1].stop_frame}"
            said.append(f"{held} are in {joined}.")
        said += self._next_run(reason, joined is not None)
        self._notices.warn(" ".join(said), first=True)

    def _next_run(self, reason: str, has_file: bool) -> list[str]:
        """Say from where the next run goes on; `reason` is why the state could not be saved."""
        if not reason:
            return ["Queue the same inputs again to go on."]
        again = "begins anew"
        if self._folder.states():
            saved = self._folder.frames_saved
            again = f"goes on from frame {saved}" if saved else "goes on from the state before"
        kept = "; the file is kept" if has_file else ""
        said = f"Queued again, the video {again}{kept}."
        return [f"The state behind them could not be saved: {reason}", said]

    def _save(self) -> str:
        """Save the state; return why that cannot be, or an empty text."""
        translation, writer = self._translation, self._translation.writer
        frames = translation.translator.frames_in
        if translation.saver is None:
            return "checkpoint_every is 0."
        if not frames:
            return "no frame has entered yet."
        if frames == self._resumed_at:
            return ""  # It is on the disk already.
        pictures = writer.pictures_path if writer.unfinished else None
        if pictures is not None and not pictures.exists():
            return "the pictures of the unfinished part cannot be written."
        try:
            times = (Shown(*when) for when in writer.unfinished)
            state = {**translation.state_dict(), _UNFINISHED: shown_numbers(times)}
            self._folder.save(frames, state, pictures)
        except Exception as error:  # Whatever it is, the error that stops the run is to be seen.
            return f"{error}"
        return ""

    def _join(self, segments: Sequence[Segment]) -> Path | None:
        """Join the finished frames into one playable file; return it, or None without one."""
        if not segments:
            return None
        path = self._folder.path / f"partial{self._suffix}"
        try:
            if path.exists() and (before := count_pictures(path)) > segments[-1].stop_frame:
                path.replace(path.with_name(f"partial_{before}{self._suffix}"))
            self._assemble(path, segments)
        except Exception as error:
            self._notices.warn(f"the finished parts could not be joined: {error}")
            return None
        for segment in segments:
            if segment not in self._translation.writer.segments:
                segment.path.unlink(missing_ok=True)
        return path
