"""The virtual environment: pinned requirements, made once per set of pins and then reused.

Standard library only: this runs before the environment exists.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from devtools.console import ToolError, say
from devtools.paths import REPO, cache_dir, exclusive, remove_tree, require_free_space

# The last torchaudio is 2.11 and the three must match, or the host fails at its start.
TORCH_PINS = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
REQUIREMENT_FILES = ("requirements.txt", "requirements-training.txt", "requirements-dev.txt")
CONSTRAINTS = REPO / "devtools" / "constraints.txt"
INSTALL_GIGABYTES = 8.0
STAMP = "complete"


def pins_hash(texts: list[str], python: tuple[int, int], machine: str) -> str:
    """Return twelve hex digits that depend on the requirements, the Python and the platform.

    Comments and blank lines do not count, so that a reworded comment causes no reinstallation.
    """
    lines = [
        line.split(" #")[0].strip()
        for text in texts
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    material = "\n".join([*lines, f"python {python[0]}.{python[1]}", machine])
    return hashlib.sha256(material.encode()).hexdigest()[:12]


def environment_dir(host_requirements: Path) -> Path:
    """Return the folder of the environment for the current pins; it may not exist yet."""
    files = [host_requirements, CONSTRAINTS, *_own_requirements()]
    texts = ["\n".join(TORCH_PINS), *(path.read_text(encoding="utf-8") for path in files)]
    machine = f"{sys.platform} {platform.machine()}"
    return cache_dir() / f"env-{pins_hash(texts, sys.version_info[:2], machine)}"


def python_in(venv: Path) -> Path:
    """Return the path of a virtual environment's interpreter on this operating system."""
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def ensure_environment(host_requirements: Path) -> Path:
    """Return the Python of the environment; install the environment first when needed (minutes).

    An incomplete environment (no stamp file) is removed and made again. Raises ToolError with one
    line when the disk is too full, `venv` is missing or the packages cannot be installed.
    """
    venv = environment_dir(host_requirements)
    if (venv / STAMP).is_file():
        return python_in(venv)
    with exclusive(venv.name):
        if not (venv / STAMP).is_file():
            _install(venv, host_requirements)
    return python_in(venv)


def _own_requirements() -> list[Path]:
    return [REPO / name for name in REQUIREMENT_FILES if (REPO / name).is_file()]


def _install(venv: Path, host_requirements: Path) -> None:
    remove_tree(venv)
    require_free_space(venv.parent, INSTALL_GIGABYTES, "the Python environment")
    say(f"Installing the Python environment into {venv} (about 7 GB, a few minutes) ...")
    make_venv(venv)
    arguments = ["install", *TORCH_PINS, "--constraint", str(CONSTRAINTS)]
    for path in [host_requirements, *_own_requirements()]:
        arguments += ["--requirement", str(path)]
    run_pip(python_in(venv), arguments, log=venv.parent / f"{venv.name}.pip.log")
    (venv / STAMP).write_text(f"{sys.version}\n", encoding="utf-8")


def make_venv(venv: Path) -> None:
    """Make a virtual environment with only pip in it. Raises ToolError when that fails."""
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            raise ToolError(
                f"this Python has no `{module}` module; install it (on Debian and Ubuntu: "
                "apt-get install python3-venv) and run again"
            )
    command = [sys.executable, "-m", "venv", str(venv)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or ["no message"]
        raise ToolError(f"could not make a virtual environment in {venv}: {lines[-1]}")


def run_pip(python: Path, arguments: list[str], log: Path) -> None:
    """Run `python -m pip` with its output in `log`. Raises ToolError with one line on failure."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    with open(log, "w", encoding="utf-8", errors="replace") as handle:
        code = subprocess.call(
            command, stdin=subprocess.DEVNULL, stdout=handle, stderr=subprocess.STDOUT
        )
    if code:
        output = log.read_text(encoding="utf-8", errors="replace")
        raise ToolError(f"{explain_pip_failure(output)} (full output: {log})")


def explain_pip_failure(output: str) -> str:
    """Explain in one line why pip failed, from its output."""
    text = output.lower()
    if "no space left on device" in text or "not enough space on the disk" in text:
        return "the disk is full: make room in the cache folder and run again"
    unreachable = (
        "connection broken by",
        "name resolution",
        "max retries exceeded",
        "failed to establish a new connection",
        "read timed out",
        "connection refused",
    )
    if any(sign in text for sign in unreachable):
        return "the package registry cannot be reached: check the network or pip's configuration"
    if "(from versions: none)" in text or "(from versions: )" in text:
        # Every required package exists: the registry did not answer, or has no copy of it.
        missing = re.search(r"requirement (\S+)", output)
        name = missing[1] if missing else "a package"
        return f"the package registry cannot be reached, or has no {name}: check the network"
    errors = [line for line in output.splitlines() if line.upper().startswith("ERROR")]
    # "No matching distribution" follows the line that lists the available versions; show that.
    reason = errors[0] if errors else (output.strip().splitlines() or ["no message"])[-1]
    return f"pip could not install the packages: {reason.strip()}"
