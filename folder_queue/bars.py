"""Two progress bars: one for the running video, one for all videos."""

from __future__ import annotations

from tqdm import tqdm

from .answers import Progress
from .folder_run import VideoReport
from .report import outcome, shown
from .workflow import Workflow


class Bars:
    """A Watcher that shows bars on a terminal, and elsewhere prints one line per video."""

    def __init__(self, count: int, workflow: Workflow) -> None:
        """Prepare for `count` videos; nothing is shown yet."""
        self._count = count
        self._workflow = workflow
        self._node = ""
        self._video = ""

    def __enter__(self) -> Bars:
        # disable=None: tqdm shows no bars where the output is no terminal.
        self._all = tqdm(
            total=self._count, desc="all videos", unit="video", position=1, disable=None
        )
        self._one = tqdm(desc="", position=0, leave=False, disable=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._one.close()
        self._all.close()

    def begin(self, video: str) -> None:
        """Show the name of the video that begins."""
        self._video, self._node = shown(video), ""
        self._start(video, 1)

    def progress(self, progress: Progress) -> None:
        """Show a node's progress; the bar starts again with each node."""
        if progress.node_id != self._node:
            self._node = progress.node_id
            title = self._workflow.title(progress.node_id)
            self._start(f"{self._video}: {shown(title)}", progress.total)
        self._one.n = progress.value
        self._one.refresh()

    def end(self, report: VideoReport) -> None:
        """Print one line for the video and count it."""
        tqdm.write(f"{shown(report.video)}: {outcome(report)}")
        self._all.update()

    def _start(self, text: str, total: int) -> None:
        self._one.set_description(text, refresh=False)
        self._one.reset(total)
