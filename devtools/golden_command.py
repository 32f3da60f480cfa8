"""The command line of `dev.py golden`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from pathlib import Path

from devtools import golden, golden_device, golden_t2v
from devtools.paths import REPO


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="dev.py golden",
        description=golden.__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("folder", type=Path, nargs="?", default=REPO / "tests" / "data")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for all checks on a GPU")
    parser.add_argument(
        "--dtype",
        action="append",
        choices=golden_device.DTYPES,
        help="on a GPU, check this type alone; may be repeated",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Check all traces, print a line for each; return 0 only if there is one and all pass."""
    options = build_parser().parse_args(arguments)
    folders = golden.trace_folders(options.folder.resolve())
    videos = golden_t2v.trace_folders(options.folder.resolve())
    if not folders and not videos:
        sys.stderr.write("No traces to check: no trace-*.safetensors beside unet.safetensors.\n")
        return 2
    if options.device != "cpu":
        return golden_device.check_all(folders, options.device, options.dtype)
    logging.disable(logging.INFO)
    with contextlib.redirect_stdout(sys.stderr):
        golden.import_host()
    passed = golden.print_errors(folders)
    return int(not (golden_t2v.print_errors(videos) and passed))
