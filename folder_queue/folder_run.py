"""Translate all videos of a folder, one after another, on one server: skip, retry, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .answers import Progress
from .client import ComfyClient
from .errors import PromptError, PromptRefusedError, ServerGoneError, UploadRefusedError, UsageError
from .ledger import Entry, Ledger, content_hash, job_fingerprint
from .translate import PATIENCE_SECONDS, translate_video
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

    After `run`, `reports` holds each video's outcome, and `stopped` why the run ended early, if so.
    """

    client: ComfyClient
    workflow: Workflow
    folder: Path
    videos: Sequence[Path]
    out: Path
    retries: int = 1
    input_dir: Path | None = None
    patience: float = PATIENCE_SECONDS
    reports: list[VideoReport] = field(default_factory=list)
    stopped: str = ""

    def __post_init__(self) -> None:
        """Make the folder of results and read its ledger. Raises UsageError if it is unusable."""
        names = result_names(self.videos)
        check_folders(self.folder, self.out, self.videos, names)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {self.out}: {error.strerror}") from error
        self._ledger = Ledger(self.out)
        self._targets = dict(zip(self.videos, names, strict=True))
        self.reports = [VideoReport(video.as_posix()) for video in self.videos]

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
        for video, report in zip(self.videos, self.reports, strict=True):
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
        if entry is None:
            entry = self._translate(video, report, watcher, content, key)
            if entry is None:
                return
            self._ledger.add(report.video, entry)
            report.status = DONE
        else:
            report.status = SKIPPED
        report.result, report.frames, report.seconds = entry.result, entry.frames, entry.seconds

    def _translate(
        self, video: Path, report: VideoReport, watcher: Watcher, content: str, key: str
    ) -> Entry | None:
        """Try once, then retry up to `retries` times; None when every attempt failed."""
        for _ in range(1 + self.retries):
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
            except (ServerGoneError, PromptRefusedError):
                raise
            except (PromptError, OSError) as error:
                report.status, report.error = FAILED, str(error)
                if isinstance(error, UploadRefusedError):
                    break
            else:
                report.error = ""
                size = result.path.stat().st_size
                name = result.path.relative_to(self.out).as_posix()
                return Entry(key, name, size, result.frames, round(result.seconds, 1))
        return None


def check_folders(folder: Path, out: Path, videos: Sequence[Path], names: Sequence[Path]) -> None:
    """Raise UsageError when results would lie among the sources or overwrite them."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, not a folder")
    sources = {(folder / video).resolve().with_suffix("") for video in videos}
    sources |= {(folder / video).resolve() for video in videos}
    if out.resolve() == folder.resolve() or any((out / n).resolve() in sources for n in names):
        raise UsageError(f"the results cannot go among the videos ({out}); choose another --out")


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
