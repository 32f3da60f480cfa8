"""Translate all videos of a folder, one after another, on one server: skip, retry, report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .answers import Progress
from .backoff import Backoff
from .client import ComfyClient
from .errors import (
    LedgerError,
    PromptError,
    PromptRefusedError,
    ServerGoneError,
    UploadRefusedError,
    UsageError,
)
from .ledger import LEDGER_NAME, Entry, Ledger, content_hash, job_fingerprint
from .parts import check_writable, real_path, remove_abandoned
from .translate import PATIENCE_SECONDS, VideoResult, translate_video
from .workflow import Workflow

DONE, SKIPPED, FAILED, STOPPED, WAITING = "done", "skipped", "failed", "stopped", "not run"
GOOD = frozenset({DONE, SKIPPED})


@dataclass
class VideoReport:
    """The outcome of one video; paths are relative to the folders of sources and of results."""

    video: str
    status: str = WAITING
    result: str = ""
    frames: int | None = None
    seconds: float | None = None
    attempts: int = 0
    error: str = ""


class Watcher(Protocol):
    """Receives the progress of a run."""

    def begin(self, video: str) -> None:
        """Called when a video begins."""

    def progress(self, progress: Progress) -> None:
        """Called when a node reports progress."""

    def end(self, report: VideoReport) -> None:
        """Called when a video is finished."""


@dataclass
class FolderRun:
    """A run over `videos`, which are relative to `folder`; results go to `out`.

    `unreadable` holds subfolders whose videos are not known, each with the reason; they count as
    failed. After `run`, `reports` holds each outcome, and `stopped` why the run ended early, if so.
    """

    client: ComfyClient
    workflow: Workflow
    folder: Path
    videos: Sequence[Path]
    out: Path
    retries: int = 1
    input_dir: Path | None = None
    patience: float = PATIENCE_SECONDS
    unreadable: Sequence[tuple[Path, str]] = ()
    reports: list[VideoReport] = field(default_factory=list)
    stopped: str = ""

    def __post_init__(self) -> None:
        """Make the folder of results and read its ledger. Raises UsageError if it is unusable."""
        names = result_names(self.videos)
        check_folders(self.folder, self.out, self.videos, names)
        try:
            check_writable(self.out / LEDGER_NAME)
        except OSError as error:
            raise UsageError(
                f"cannot write to the folder of results {self.out}: {error.strerror}"
            ) from error
        remove_abandoned(self.out)
        self._ledger = Ledger(self.out)
        self._targets = dict(zip(self.videos, names, strict=True))
        self.reports = [VideoReport(video.as_posix()) for video in self.videos]
        self.reports += [
            VideoReport(folder.as_posix(), FAILED, error=f"cannot read the folder: {reason}")
            for folder, reason in self.unreadable
        ]

    @property
    def succeeded(self) -> bool:
        """Whether every video has its result."""
        return not self.stopped and all(report.status in GOOD for report in self.reports)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the run."""
        return any(report.status == STOPPED for report in self.reports)

    def run(self, watcher: Watcher) -> None:
        """Translate the videos. Ctrl-C, a lost server or a refused workflow end the run early."""
        # Behind the videos come the folders that could not be read.
        for video, report in zip(self.videos, self.reports, strict=False):
            watcher.begin(report.video)
            try:
                self._deal_with(video, report, watcher)
            except KeyboardInterrupt:
                report.status, self.stopped = STOPPED, "stopped by Ctrl-C"
            except (ServerGoneError, PromptRefusedError) as error:
                report.status, report.error, self.stopped = FAILED, str(error), str(error)
            watcher.end(report)
            if self.stopped:
                return

    def _deal_with(self, video: Path, report: VideoReport, watcher: Watcher) -> None:
        try:
            content = content_hash(self.folder / video)
        except OSError as error:
            report.status, report.error = FAILED, f"cannot read it: {error.strerror}"
            return
        key = job_fingerprint(content, self.workflow.fingerprint())
        entry = self._ledger.done(report.video, key)
        if entry is not None:
            report.status = SKIPPED
        elif (entry := self._make(video, report, watcher, content, key)) is None:
            return
        report.result, report.frames, report.seconds = entry.result, entry.frames, entry.seconds

    def _make(
        self, video: Path, report: VideoReport, watcher: Watcher, content: str, key: str
    ) -> Entry | None:
        """Translate a video and record it; None when it failed."""
        try:
            # The result could otherwise fail to be written when the server has long made it.
            check_writable(self._result(video))
        except OSError as error:
            name = self._result(video).relative_to(self.out)
            report.status, report.error = FAILED, f"cannot write {name}: {error.strerror}"
            return None
        entry = self._translate(video, report, watcher, content, key)
        if entry is not None:
            report.status = DONE
            try:
                self._ledger.add(report.video, entry)
            except LedgerError as error:
                report.error = f"the next run will translate it again: {error}"
        return entry

    def _result(self, video: Path) -> Path:
        """Return the path that a video's result has if Save Video chooses its usual format."""
        target = self.out / self._targets[video]
        return target.with_name(f"{target.name}.mp4")

    def _translate(
        self, video: Path, report: VideoReport, watcher: Watcher, content: str, key: str
    ) -> Entry | None:
        """Try once, then retry up to `retries` times; None when every attempt failed."""
        backoff = Backoff(self.client.sleep)
        for attempt in range(1 + self.retries):
            if attempt:
                backoff.wait()
            report.attempts += 1
            try:
                result = translate_video(
                    self.client,
                    self.workflow,
                    self.folder / video,
                    self.out / self._targets[video],
                    watcher.progress,
                    content=content,
                    input_dir=self.input_dir,
                    patience=self.patience,
                )
                entry = self._entry(key, result)
            except (ServerGoneError, PromptRefusedError):
                raise
            except (PromptError, OSError) as error:
                report.status, report.error = FAILED, str(error)
                if isinstance(error, UploadRefusedError):
                    break
            else:
                report.error = ""
                return entry
        return None

    def _entry(self, key: str, result: VideoResult) -> Entry:
        size = result.path.stat().st_size
        name = result.path.relative_to(self.out).as_posix()
        return Entry(key, name, size, result.frames, round(result.seconds, 1))


def check_folders(folder: Path, out: Path, videos: Sequence[Path], names: Sequence[Path]) -> None:
    """Raise UsageError when results would lie among the sources or overwrite them."""
    check_apart(folder, out)
    sources = {real_path(folder / video).with_suffix("") for video in videos}
    sources |= {real_path(folder / video) for video in videos}
    for name in names:
        if real_path(out / name) in sources:
            raise UsageError(
                f"the result {out / name} would replace a video of that name; choose another --out"
            )


def check_apart(folder: Path, out: Path) -> None:
    """Raise UsageError when the folder of results is a file, or is or holds that of the videos.

    What lies among the results is never taken for a source, lest results be translated again.
    """
    real, results = real_path(folder), real_path(out)
    if os.path.isfile(out):
        raise UsageError(f"--out {out} is a file, not a folder")
    if not real.is_relative_to(results):
        return
    relation = "is the folder of the videos" if real == results else f"holds the videos in {folder}"
    raise UsageError(
        f"--out {out} {relation}: results and videos could not be told apart; choose another "
        f"--out, such as {default_out(folder)}"
    )


def default_out(folder: Path) -> Path:
    """Return the default folder of results, which lies beside the sources."""
    real = real_path(folder)
    if not real.name:
        raise UsageError(f"there is no place beside {folder} for the results; give an --out")
    return real.with_name(f"{real.name}-translated")


def result_names(videos: Sequence[Path]) -> list[Path]:
    """Return the path of each video's result, without the ending of its format.

    A result has its video's name; videos that differ only in their ending keep it, as in
    clip.mov.mp4. Upper and lower case count as equal, as they do on many file systems.
    """
    stems = [video.with_suffix("").as_posix().casefold() for video in videos]
    return [
        video if stems.count(stem) > 1 else video.with_suffix("")
        for video, stem in zip(videos, stems, strict=True)
    ]
