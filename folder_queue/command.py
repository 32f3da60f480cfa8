"""The command line of queue_folder."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from live2diff_core.video.folder import VIDEO_PATTERN, list_videos

from .bars import Bars
from .client import ComfyClient
from .errors import UsageError
from .folder_run import FolderRun
from .report import REPORT_NAME, summary, table, write_report
from .translate import PATIENCE_SECONDS
from .workflow import load_workflow

SERVER = "http://127.0.0.1:8188"
OK, NOT_ALL, USAGE, INTERRUPTED = 0, 1, 2, 130
EPILOG = """\
The exit code is 0 if every video has its result, 1 if not, 2 if the command cannot be run as
given, 130 after Ctrl-C. What is done is kept in a ledger among the results: the same command again
translates only what is missing, has changed, or failed. Results of other settings replace them;
give those another --out."""


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="queue_folder.py",
        description="Translate all videos of a folder on a ComfyUI server, one after another.",
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="the folder with the videos")
    _add_workflow_options(add)
    _add_folder_options(add)
    add("--server", default=SERVER, metavar="URL", help=f"where ComfyUI runs (default: {SERVER})")
    add(
        "--input-dir",
        type=Path,
        metavar="DIR",
        help="the server's input folder, if this machine can write to it: videos are then linked "
        "there rather than uploaded, and may be of any size",
    )
    add(
        "--retry",
        type=int,
        default=1,
        metavar="N",
        help="how often a failed video is tried again (default: 1)",
    )
    add(
        "--wait",
        type=float,
        default=PATIENCE_SECONDS,
        metavar="SECONDS",
        help="how long to wait for a server that went away (default: %(default).0f)",
    )
    return parser


def _add_workflow_options(add: Callable[..., Any]) -> None:
    add(
        "--workflow",
        type=Path,
        required=True,
        metavar="FILE",
        help="a workflow with one Load Video and one Save Video: one of workflows/, or one of "
        "yours in API format",
    )
    add(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NODE.INPUT=VALUE",
        help="change an input of the workflow: node by id or class, as in ImageScale.width=512",
    )
    add("--video-node", metavar="ID", help="the node that loads the video, if there are several")
    add("--save-node", metavar="ID", help="the node that saves the result, if there are several")


def _add_folder_options(add: Callable[..., Any]) -> None:
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the results go (default: FOLDER-translated, beside FOLDER)",
    )
    add("--recursive", action="store_true", help="take the videos of subfolders, too")
    add(
        "--pattern",
        default=VIDEO_PATTERN,
        metavar="GLOBS",
        help="which files, by name, separated by semicolons (default: %(default)s)",
    )
    add(
        "--report",
        type=Path,
        metavar="FILE",
        help=f"where the JSON report goes (default: {REPORT_NAME} in the folder of results)",
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = build_parser().parse_args(arguments)
    # SIGTERM ends the run like Ctrl-C: the prompt is cancelled on the server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(options)
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return USAGE
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    run = prepare(options)
    started = monotonic()
    try:
        with run.client, Bars(len(run.videos), run.workflow) as bars:
            run.run(bars)
    finally:
        report = options.report or run.out / REPORT_NAME
        write_report(report, run, options.workflow, monotonic() - started)
    sys.stdout.write(f"\n{table(run.reports)}\n\n{summary(run)}\nReport: {report}\n")
    if run.interrupted:
        return INTERRUPTED
    return OK if run.succeeded else NOT_ALL


def prepare(options: argparse.Namespace) -> FolderRun:
    """Check the options before the first video. Raises UsageError with a one-line message."""
    folder, out = options.folder, options.out or default_out(options.folder)
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    if options.input_dir is not None and not options.input_dir.is_dir():
        raise UsageError(f"--input-dir: there is no folder {options.input_dir}")
    if options.retry < 0 or options.wait < 0:
        raise UsageError("--retry and --wait take 0 or more")
    workflow = load_workflow(options.workflow, options.set, options.video_node, options.save_node)
    # Results inside the folder, of this run or an earlier one, are not sources.
    videos = [
        video
        for video in list_videos(folder, options.pattern, options.recursive)
        if not (folder / video).resolve().is_relative_to(out.resolve())
    ]
    if not videos:
        depth = "or its subfolders" if options.recursive else "(--recursive looks into subfolders)"
        raise UsageError(f"no file in {folder} {depth} matches {options.pattern!r}")
    client = ComfyClient(options.server)
    if not client.is_up():
        raise UsageError(
            f"no ComfyUI answers at {client.url}; start it, or give its address with --server"
        )
    return FolderRun(
        client,
        workflow,
        folder,
        videos,
        out,
        retries=options.retry,
        input_dir=options.input_dir,
        patience=options.wait,
    )


def default_out(folder: Path) -> Path:
    """Return the default folder of results, which lies beside the sources."""
    real = folder.resolve()
    return real.with_name(f"{real.name}-translated")
