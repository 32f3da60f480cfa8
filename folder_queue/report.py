"""The report of a run: a table for people, a JSON file for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .folder_run import DONE, FAILED, SKIPPED, FolderRun, VideoReport
from .ledger import write_json

REPORT_NAME = "queue_folder.report.json"
_LONGEST_ERROR = 200


def table(reports: Sequence[VideoReport]) -> str:
    """Format one line per video: name, frames, seconds, result."""
    rows = [("video", "frames", "seconds", "result")]
    rows += [
        (shown(each.video), _number(each.frames), _number(each.seconds), outcome(each))
        for each in reports
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name:<{widths[0]}}  {frames:>{widths[1]}}  {seconds:>{widths[2]}}  {result}"
        for name, frames, seconds, result in rows
    ]
    rule = "  ".join("-" * width for width in [*widths, len("result")])
    return "\n".join([lines[0], rule, *lines[1:]])


def outcome(report: VideoReport) -> str:
    """Describe the outcome of a video in a few words."""
    tries = f" after {report.attempts} attempts" if report.attempts > 1 else ""
    why = shown(" ".join(report.error.split()))
    why = why if len(why) <= _LONGEST_ERROR else f"{why[:_LONGEST_ERROR]} ..."
    if report.status == SKIPPED:
        return f"{shown(report.result)} (done before)"
    if report.status == DONE:
        return f"{shown(report.result)}{tries}" + (f" ({why})" if why else "")
    status = report.status.upper() if report.status == FAILED else report.status
    return f"{status}{tries}" + (f": {why}" if why else "")


def shown(text: str) -> str:
    """Return a text as one line for a terminal: what is not printable is escaped.

    A name may hold line ends, the terminal's own commands, or bytes that are no text at all.
    """
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def summary(run: FolderRun) -> str:
    """Describe in one line how many videos had which outcome."""
    counts = Counter(report.status for report in run.reports)
    text = ", ".join(f"{count} {status}" for status, count in counts.items())
    why = f". {shown(' '.join(run.stopped.split()))}" if run.stopped else ""
    return f"{len(run.reports)} videos: {text}{why}"


def write_report(path: Path, run: FolderRun, workflow: Path, seconds: float) -> None:
    """Write a run and its reports to a JSON file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data: dict[str, Any] = {
        "server": run.client.url,
        "workflow": str(workflow),
        "folder": str(run.folder),
        "out": str(run.out),
        "seconds": round(seconds, 1),
        "succeeded": run.succeeded,
        "stopped": run.stopped,
        "videos": [asdict(report) for report in run.reports],
    }
    write_json(path, data)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
