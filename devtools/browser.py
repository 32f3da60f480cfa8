"""The Chromium for the tests of ComfyUI's page: an installed one, else one that is fetched.

Standard library only: this runs before the environment exists.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from devtools.console import ToolError, say
from devtools.hosts import tools_python
from devtools.paths import cache_dir, exclusive

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Package manager -> the arguments of its successive calls that install Chromium.
PACKAGE_MANAGERS = {
    "apt-get": (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]),
    "dnf": (["install", "--assumeyes", "chromium"],),
    "pacman": (["--sync", "--refresh", "--noconfirm", "chromium"],),
}
# Time limit of each command; a download may take long.
SECONDS = 900
# Code that prints where Playwright keeps its download.
WHERE = "from playwright.sync_api import sync_playwright as p\nwith p() as started: "
WHERE += "print(started.chromium.executable_path)"


def find_browser() -> Path | None:
    """Return the browser that the variable CHROMIUM names, else the first on the PATH.

    Raises ToolError when CHROMIUM names no file.
    """
    named = os.environ.get("CHROMIUM")
    if named and not Path(named).is_file():
        raise ToolError(f"CHROMIUM={named} is not a file")
    return next((Path(path) for path in (named, *map(shutil.which, NAMES)) if path), None)


def ensure_browser() -> Path:
    """Return a browser that runs; fetch one first when there is none (a minute).

    Playwright's own download goes into the cache folder; if that fails, the system's package
    manager is used, if this user may. Raises ToolError with one line when neither works.
    """
    found = find_browser()
    if found:
        return found
    with exclusive("browser"):
        found = _downloaded() or _packaged()
    if found is None:
        raise ToolError(
            "the tests of the page need Chromium, and it could be neither downloaded nor "
            "installed: install Chromium or Google Chrome, or set CHROMIUM to its path"
        )
    return found


def _downloaded() -> Path | None:
    """Return Playwright's Chromium in our cache folder, if it can be fetched and runs."""
    python = [str(tools_python())]
    browser = Path(_output([*python, "-c", WHERE]) or "missing")
    if not browser.is_file():
        say("Fetching Chromium for the tests of the page ...")
        _output([*python, "-m", "playwright", "install", "--no-shell", "chromium"])
    if browser.is_file() and not _runs(browser) and _as_root() is not None:
        # It does not run because system libraries are missing.
        _output([*python, "-m", "playwright", "install-deps", "chromium"])
    return browser if _runs(browser) else None


def _packaged() -> Path | None:
    """Install Chromium with the system's package manager, if this user may, and return it."""
    root = _as_root()
    manager = next(filter(shutil.which, PACKAGE_MANAGERS), None)
    if root is None or manager is None:
        return None
    say(f"Installing Chromium with {manager} ...")
    for arguments in PACKAGE_MANAGERS[manager]:
        _output([*root, manager, *arguments])
    found = find_browser()
    return found if found and _runs(found) else None


def _as_root() -> list[str] | None:
    """Return the prefix that runs a command as root; None where that is not allowed."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return []
    return ["sudo", "-n"] if _output(["sudo", "-n", "true"]) is not None else None


def _runs(browser: Path) -> bool:
    return browser.is_file() and bool(_output([str(browser), "--version"]))


def _output(command: list[str]) -> str | None:
    """Run a command silently and return its output; None when it fails or does not exist."""
    variables = {
        "DEBIAN_FRONTEND": "noninteractive",
        "PLAYWRIGHT_BROWSERS_PATH": str(cache_dir() / "browsers"),
        "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "5000",
    }
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **variables},
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
