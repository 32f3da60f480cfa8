"""The command line of queue_folder."""

from __future__ import annotations

import argparse
import io
import os
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
from .folder_run import FolderRun, check_apart, default_out
from .ledger import LEDGER_NAME, LOCK_NAME
from .parts import check_writable, real_path
from .report import REPORT_NAME, shown, summary, table, write_report
from .transfer import SUBFOLDER
from .translate import PATIENCE_SECONDS
from .workflow import load_workflow

SERVER = "http://127.0.0.1:8188"
OK, NOT_ALL, USAGE, INTERRUPTED = 0, 1, 2, 130
EPILOG = """\
The exit code is 0 if every video has its result, 1 if not or if the report could not be written, 2
if the command cannot be run as given, 130 after Ctrl-C. What is done is kept in a ledger among the
results: the same command again translates only what is missing, has changed, or failed. Results of
other settings replace them; give those another --out."""


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
    # A terminal that has no sign for a letter of a name must not end the run.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return _run(options)
    except UsageError as error:
        sys.stderr.write(f"error: {shown(str(error))}\n")
        return USAGE
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return INTERRUPTED


def _run(options: argparse.Namespace) -> int:
    run = prepare(options)
    report = options.report or run.out / REPORT_NAME
    started, failure = monotonic(), ""
    try:
        with run.client, Bars(len(run.videos), run.workflow) as bars:
            run.run(bars)
    finally:
        try:
            write_report(report, run, options.workflow, monotonic() - started)
        except OSError as error:
            failure = f"cannot write the report {report}: {error.strerror}"
    sys.stdout.write(f"\n{table(run.reports)}\n\n{summary(run)}\n")
    sys.stdout.write(f"{shown(failure or f'Report: {report}')}\n")
    if run.interrupted:
        return INTERRUPTED
    return OK if run.succeeded and not failure else NOT_ALL


def prepare(options: argparse.Namespace) -> FolderRun:
    """Check the options before the first video. Raises UsageError with a one-line message."""
    folder, out = options.folder, options.out or default_out(options.folder)
    check_folder("", folder)
    if options.input_dir is not None:
        check_input_dir(options.input_dir, folder)
    if options.retry < 0 or not options.wait >= 0:
        raise UsageError("--retry and --wait take 0 or more")
    check_apart(folder, out)
    workflow = load_workflow(options.workflow, options.set, options.video_node, options.save_node)
    videos, unreadable = find_videos(options, out)
    client = ComfyClient(options.server)
    if reason := client.why_down():
        raise UsageError(
            f"no ComfyUI answers at {client.url}; start it, or give its address with --server "
            f"({reason})"
        )
    run = FolderRun(
        client,
        workflow,
        folder,
        videos,
        out,
        retries=options.retry,
        input_dir=options.input_dir,
        patience=options.wait,
        unreadable=unreadable,
    )
    check_report(options, run)
    return run


def check_folder(option: str, folder: Path) -> None:
    """Raise UsageError when a folder cannot be read, with the reason."""
    try:
        with os.scandir(folder):
            return
    except FileNotFoundError as error:
        raise UsageError(f"{option}there is no folder {folder}") from error
    except OSError as error:
        raise UsageError(f"{option}cannot read the folder {folder}: {error.strerror}") from error


def check_input_dir(input_dir: Path, folder: Path) -> None:
    """Raise UsageError when videos cannot be linked into the server's input folder."""
    check_folder("--input-dir: ", input_dir)
    # Videos that lie there already are used where they are.
    if real_path(folder).is_relative_to(real_path(input_dir)):
        return
    try:
        check_writable(input_dir / SUBFOLDER / "video")
    except OSError as error:
        raise UsageError(f"--input-dir: cannot write to {input_dir}: {error.strerror}") from error


def find_videos(
    options: argparse.Namespace, out: Path
) -> tuple[list[Path], list[tuple[Path, str]]]:
    """Find the videos, and the subfolders that cannot be read with the reason of each.

    Raises UsageError when there is no video.
    """
    folder, unreadable = options.folder, []

    def note(error: OSError) -> None:
        unreadable.append((Path(error.filename).relative_to(folder), str(error.strerror)))

    # Results inside the folder, of this run or an earlier one, are not sources.
    videos = [
        video
        for video in list_videos(folder, options.pattern, options.recursive, note)
        if not real_path(folder / video).is_relative_to(real_path(out))
    ]
    if not (videos or unreadable):
        depth = "or its subfolders" if options.recursive else "(--recursive looks into subfolders)"
        raise UsageError(f"no file in {folder} {depth} matches {options.pattern!r}")
    return videos, unreadable


def check_report(options: argparse.Namespace, run: FolderRun) -> None:
    """Raise UsageError when the report cannot be written, or would replace another file."""
    report = options.report or run.out / REPORT_NAME
    others = [options.workflow, run.out / LEDGER_NAME, run.out / LOCK_NAME]
    others += [run.folder / video for video in run.videos]
    if real_path(report) in map(real_path, others):
        raise UsageError(f"--report {report} would replace that file; choose another")
    try:
        check_writable(report)
    except OSError as error:
        raise UsageError(f"cannot write the report {report}: {error.strerror}") from error
