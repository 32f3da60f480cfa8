"""Try, test and check comfyui-live2diff on any machine: `python3 dev.py --help`.

Standard library only, Python 3.10 to 3.12. What the commands need is installed into the user's
cache folder on first use; the work is done by the modules in `devtools/`.
"""

from __future__ import annotations

import argparse
import os
import sys

OLDEST, NEWEST = (3, 10), (3, 12)
SAMPLE_STAGES = ["images", "vae", "depth", "latents", "denoiser", "clips", "export"]
EVIDENCE_STAGES = ["modules", "measure", "lasting", "costs", "report"]


def python_problem(version):
    """Explain in one line why this Python is unsupported; None when it is supported.

    Must run on Python 3.8, too.
    """
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return None
    return "dev.py needs Python 3.10, 3.11 or 3.12, but this is Python %d.%d (%s)" % (
        version[0],
        version[1],
        sys.executable,
    )


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line and its commands."""
    parser = argparse.ArgumentParser(prog="dev.py", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="translate a video in a real ComfyUI, into output/")
    demo.add_argument("--input", metavar="FILE", help="a video of your own")
    demo.add_argument("--prompt", metavar="TEXT", help="another style, such as 'neon lights'")
    demo.add_argument("--checkpoint", metavar="FILE", help="an SD1.5 checkpoint: path or name")
    demo.add_argument("--motion-module", metavar="FILE", help="a motion module: path or name")
    demo.add_argument("--depth-model", metavar="FILE", help="a MiDaS file: path or name")
    demo.add_argument("--host", metavar="VERSION", help="a ComfyUI version, e.g. 0.24.0")
    demo.add_argument("--port", type=int, help="the server's port (default: a free one)")
    demo.add_argument("--keep-server", action="store_true", help="keep serving until Ctrl-C")

    test = commands.add_parser(
        "test",
        help="run the tests",
        description="Run the usual tests, in some minutes, or the test files that are named. "
        "Other options go to pytest.",
    )
    test.add_argument("--host", metavar="VERSION", help="a ComfyUI version, e.g. 0.24.0")
    test.add_argument(
        "--all", dest="also", action="store_const", const="all", default="", help="run all tests"
    )
    test.add_argument(
        "--also",
        metavar="NAME,...",
        help="beside the usual tests, those marked fuzz, thorough, long, marathon, hostile or "
        "network (pyproject.toml says what that is), or the tests on an older ComfyUI, e.g. 0.20.1",
    )
    test.add_argument(
        "--soak", action="store_true", help="as --all, and let the hostile tests take an hour"
    )

    golden = commands.add_parser("golden", help="check recorded traces of the reference code")
    golden.add_argument(
        "folder", metavar="FOLDER", nargs="?", help="of traces, or of such folders: tests/data"
    )
    golden.add_argument("--device", default="cpu", help="cuda: on a GPU, and what only it shows")
    golden.add_argument("--dtype", action="append", help="on a GPU: float32, float16 or bfloat16")

    sample = commands.add_parser("sample-model", help="make the sample model again (hours)")
    sample.add_argument("work", metavar="WORK", help="folder for what is made on the way")
    sample.add_argument("--stages", nargs="+", metavar="STAGE", default=SAMPLE_STAGES)

    live = commands.add_parser("live-bench", help="measure live streams in a real ComfyUI")
    live.add_argument("--json", metavar="FILE", help="write the figures there, too")
    live.add_argument("--frames", type=int, default=2000, help="frames of each measurement")

    evidence = commands.add_parser("evidence", help="make docs/evidence.md again (hours)")
    evidence.add_argument("work", metavar="WORK", help="the folder of dev.py sample-model")
    evidence.add_argument("--stages", nargs="+", metavar="STAGE", default=EVIDENCE_STAGES)

    commands.add_parser("lint", help="ruff check, ruff format --check, mypy")
    return parser


def main() -> int:
    """Parse the command line, run the command and return its exit status."""
    problem = python_problem(sys.version_info)
    if problem:
        sys.stderr.write("error: %s\n" % problem)
        return 1
    parser = build_parser()
    options, rest = parser.parse_known_args()
    if rest and options.command != "test":
        parser.error("unrecognized arguments: " + " ".join(rest))

    # Imported only now, because devtools needs the Python that was just checked for. The path is
    # added because PYTHONSAFEPATH leaves the script's folder out.
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from devtools import commands
    from devtools.console import run_main

    return run_main(lambda: commands.run(options, rest))


if __name__ == "__main__":
    sys.exit(main())
