"""The commands of dev.py. Standard library only: they prepare and start the venv's Python."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from devtools.browser import ensure_browser
from devtools.console import ToolError, say
from devtools.hosts import CARRIER_VERSIONS, DEFAULT_VERSION, Host, ensure_host, tools_python
from devtools.paths import REPO
from devtools.server import choose_port

RUNNER = REPO / "devtools" / "run.py"
# Pytest marks (described in pyproject.toml) and older hosts that `test` runs only with `--all`.
MARKS = ("fuzz", "thorough", "long", "marathon", "hostile", "network")
OLDER_HOSTS = tuple(version for version in CARRIER_VERSIONS if version != DEFAULT_VERSION)
# Use all cores; tests that share a server stay together (tests/conftest.py).
PARALLEL = ("-n", "logical", "--maxprocesses=8", "--dist=loadgroup")
ALL_TESTS = ("tests/unit", "tests/host", "tests/server", "tests/browser", "tests/hostile")
# Tells the tests that they may take an hour (tests/hostile).
SOAK = "LIVE2DIFF_SOAK"
# The tests that depend on the host's version; the others need to run only once.
HOST_TESTS = ("tests/host", "tests/server")
PAGE_TESTS = REPO / "tests" / "browser"
# Commands that run stages in a folder of work, by their modules.
STAGED = {
    "sample-model": "training.sample_model.build",
    "evidence": "training.evidence.build",
}
INTERRUPTED, NO_TESTS_COLLECTED = 2, 5


def run(options: argparse.Namespace, pytest_arguments: list[str]) -> int:
    """Run the command that `dev.py` parsed and return its exit status."""
    if options.command == "demo":
        return _demo(options)
    if options.command == "test":
        return _run_tests(options, pytest_arguments)
    if options.command == "golden":
        return _run_module(ensure_host(), "devtools.golden", golden_arguments(options))
    if options.command in STAGED:
        arguments = [str(Path(options.work).resolve()), "--stages", *options.stages]
        return _run_module(ensure_host(), STAGED[options.command], arguments)
    if options.command == "live-bench":
        return _run_module(ensure_host(), "devtools.live_bench", live_bench_arguments(options))
    return _lint()


def live_bench_arguments(options: argparse.Namespace) -> list[str]:
    """Return the arguments of `devtools.live_bench`, whose file starts at the user's folder."""
    written = [] if options.json is None else ["--json", str(Path(options.json).resolve())]
    return [f"--frames={options.frames}", *written]


def golden_arguments(options: argparse.Namespace) -> list[str]:
    """Return the arguments of `devtools.golden`, whose folder starts at the user's."""
    folder = [] if options.folder is None else [str(Path(options.folder).resolve())]
    dtypes = [f"--dtype={dtype}" for dtype in options.dtype or ()]
    return [*folder, f"--device={options.device}", *dtypes]


def _demo(options: argparse.Namespace) -> int:
    # Check the options before the setup, which takes minutes.
    choose_port(options.port)
    if options.input is not None and not Path(options.input).is_file():
        raise ToolError(f"there is no file {options.input}")
    arguments = ["--keep-server"] if options.keep_server else []
    for name in ("input", "prompt", "checkpoint", "motion_module", "depth_model", "port"):
        value = getattr(options, name)
        if value is not None:
            # The demo runs in the checkout, but a relative path starts at the user's folder.
            given = Path(str(value)).resolve() if Path(str(value)).is_file() else value
            arguments += [f"--{name.replace('_', '-')}", str(given)]
    return _run_module(ensure_host(options.host), "devtools.demo", arguments)


def _run_tests(options: argparse.Namespace, arguments: list[str]) -> int:
    if options.soak:
        os.environ[SOAK] = "1"
    return _test(options.host, parts("all" if options.soak else options.also), arguments)


def _test(version: str | None, also: set[str], arguments: list[str]) -> int:
    failed = []
    for each in [version, *(older for older in OLDER_HOSTS if older in also)]:
        host = ensure_host(each)
        say(f"Testing with ComfyUI {host.version} ({host.source})")
        older = each in also
        folders, marks = (HOST_TESTS, also - {"hostile"}) if older else (ALL_TESTS, also)
        status = _pytest(host, pytest_arguments(arguments, marks, folders))
        # A selection of tests (-k) may contain none that depend on the host.
        if status and not (older and status == NO_TESTS_COLLECTED):
            failed.append(host.version)
    if failed:
        raise ToolError(f"tests failed with ComfyUI {', '.join(failed)}")
    say("All tests that ran have passed.")
    return 0


def parts(names: str) -> set[str]:
    """Parse which tests run beside the usual ones: names separated by commas, or "all"."""
    known = [*MARKS, *OLDER_HOSTS]
    wanted = set(known if names == "all" else filter(None, names.split(",")))
    if not wanted <= set(known):
        unknown = ", ".join(sorted(wanted - set(known)))
        raise ToolError(f"there are no tests called {unknown}, only {', '.join(known)}")
    return wanted


def pytest_arguments(given: list[str], also: set[str], folders: Sequence[str]) -> list[str]:
    """Return pytest's arguments for the named tests, whatever their marks, else the usual ones.

    Args:
        given: the user's arguments, which come later and so win.
        also: marks of tests that run in addition to the usual ones.
        folders: the folders of the usual tests.
    """
    if any(_path_in(argument) for argument in given):
        return given
    left_out = " or ".join(mark for mark in MARKS if mark not in also)
    return [*PARALLEL, *(["-m", f"not ({left_out})"] if left_out else []), *given, *folders]


def _path_in(argument: str) -> Path | None:
    """Return the file or folder of tests that an argument of pytest names."""
    path = (REPO / argument.split("::")[0]).resolve()
    return path if not argument.startswith("-") and path.exists() else None


def _pytest(host: Host, arguments: list[str]) -> int:
    env = {}
    paths = [path for argument in arguments if (path := _path_in(argument))]
    if any(PAGE_TESTS in (path, *path.parents) or path in PAGE_TESTS.parents for path in paths):
        # Fetch the browser before the tests, which take minutes.
        env["CHROMIUM"] = str(ensure_browser())
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        status = _run_module(host, "pytest", ["-rs", f"--junitxml={report}", *arguments], env)
        for line in skip_lines(report.read_text(encoding="utf-8") if report.is_file() else ""):
            say(line)
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    return status


def skip_lines(junit_xml: str) -> list[str]:
    """List the reasons for skipped tests, one line each, from pytest's JUnit report."""
    if not junit_xml:
        return []
    skipped = ElementTree.fromstring(junit_xml).iter("skipped")
    reasons = Counter(item.get("message", "no reason given") for item in skipped)
    if not reasons:
        return ["Nothing was skipped."]
    return [f"Skipped {count} test(s): {reason}" for reason, count in reasons.items()]


def _lint() -> int:
    python = tools_python()
    checks = (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "live2diff_core"],
    )
    env = _environment()
    failed = [check[0] for check in checks if _call([python, RUNNER, *check], env)]
    if failed:
        raise ToolError(f"not clean: {', '.join(failed)}")
    return 0


def _run_module(
    host: Host, module: str, arguments: list[str], more: dict[str, str] | None = None
) -> int:
    # COMFYUI_PATH tells the tests and the tools inside the venv which host was chosen.
    paths = {
        "PYTHONPATH": host.python_path(host.source, REPO),
        "COMFYUI_PATH": str(host.source),
    }
    return _call(
        [tools_python(), RUNNER, module, *arguments], _environment(**paths, **(more or {}))
    )


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO), "HF_HUB_OFFLINE": "1", **more}


def _call(command: list[str | Path], env: dict[str, str]) -> int:
    """Run a child in the checkout. It receives Ctrl-C itself and is awaited while it stops."""
    process = subprocess.Popen([str(part) for part in command], cwd=REPO, env=env)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
