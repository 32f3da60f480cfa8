"""The commands of dev.py. Standard library only: they set things up and start the venv's Python."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from devtools.console import ToolError, say
from devtools.hosts import CARRIER_VERSIONS, DEFAULT_VERSION, Host, ensure_host, tools_python
from devtools.paths import REPO
from devtools.server import choose_port

RUNNER = REPO / "devtools" / "run.py"
# Quick ones first. Playwright keeps an event loop running once it has started, so it comes last.
ALL_TESTS = ("tests/unit", "tests/host", "tests/server", "tests/browser")
# What depends on the host's version; the other tests need to run only once.
HOST_TESTS = ("tests/host", "tests/server")
NO_TESTS_COLLECTED = 5


def run(options: argparse.Namespace, pytest_arguments: list[str]) -> int:
    """Run the command that `dev.py` parsed; its exit status."""
    if options.command == "demo":
        return _demo(options)
    if options.command == "test":
        return _test(options.host, pytest_arguments)
    if options.command == "golden":
        folder = Path(options.folder).resolve()
        return _run_module(ensure_host(), "devtools.golden", [str(folder)])
    return _lint()


def _demo(options: argparse.Namespace) -> int:
    # Before minutes of setting up, rather than after.
    choose_port(options.port)
    if options.input is not None and not Path(options.input).is_file():
        raise ToolError(f"there is no file {options.input}")
    arguments = ["--keep-server"] if options.keep_server else []
    for name in ("input", "checkpoint", "motion_module", "depth_model", "port"):
        value = getattr(options, name)
        if value is not None:
            # The demo runs in the checkout; a relative path is meant from where the user is.
            given = Path(str(value)).resolve() if Path(str(value)).is_file() else value
            arguments += [f"--{name.replace('_', '-')}", str(given)]
    return _run_module(ensure_host(options.host), "devtools.demo", arguments)


def _test(wanted: str | None, arguments: list[str]) -> int:
    versions = [wanted] if wanted != "all" else list(CARRIER_VERSIONS)
    failed = []
    for version in versions:
        host = ensure_host(version)
        # With `all`, only the first run (the newest host) takes in the tests without a host.
        whole = version in (None, wanted, DEFAULT_VERSION)
        folders = list(ALL_TESTS if whole else HOST_TESTS)
        say(f"Testing with ComfyUI {host.version} ({host.source})")
        if _pytest(host, folders, arguments) != 0:
            failed.append(host.version)
    if failed:
        raise ToolError(f"tests failed with ComfyUI {', '.join(failed)}")
    say("All tests that ran have passed.")
    return 0


def _pytest(host: Host, folders: list[str], arguments: list[str]) -> int:
    # Arguments that name test files replace the folders.
    chosen = [] if any(_names_tests(argument) for argument in arguments) else folders
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        command = ["-rs", f"--junitxml={report}", *arguments, *chosen]
        status = _run_module(host, "pytest", command)
        for line in skip_lines(report.read_text(encoding="utf-8") if report.is_file() else ""):
            say(line)
    return 0 if status == NO_TESTS_COLLECTED and not chosen else status


def _names_tests(argument: str) -> bool:
    return not argument.startswith("-") and (REPO / argument.split("::")[0]).exists()


def skip_lines(junit_xml: str) -> list[str]:
    """What was skipped and why, one line a reason, from pytest's JUnit report."""
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
    failed = [check[0] for check in checks if _call([python, RUNNER, *check], _environment())]
    if failed:
        raise ToolError(f"not clean: {', '.join(failed)}")
    return 0


def _run_module(host: Host, module: str, arguments: list[str]) -> int:
    env = _environment(host.python_path(host.source, REPO))
    # For the tests and the tools inside the venv: which host was chosen.
    env["COMFYUI_PATH"] = str(host.source)
    return _call([tools_python(), RUNNER, module, *arguments], env)


def _environment(python_path: str = str(REPO)) -> dict[str, str]:
    browsers = ("chromium", "chromium-browser", "google-chrome")
    found = [path for path in map(shutil.which, browsers) if path]
    env = {**os.environ, "PYTHONPATH": python_path, "HF_HUB_OFFLINE": "1"}
    return {"CHROMIUM": found[0], **env} if found else env


def _call(command: list[str | Path], env: dict[str, str]) -> int:
    """Run a child in the checkout. It gets Ctrl-C itself, and the time to stop its server."""
    process = subprocess.Popen([str(part) for part in command], cwd=REPO, env=env)
    if sys.platform != "win32":
        signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue
