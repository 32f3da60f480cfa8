"""Installing requirements.txt must not change a version that ComfyUI's own requirements chose."""

import importlib.metadata as metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMFYUI = os.environ.get("COMFYUI_PATH", "")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirement_name(line: str) -> str | None:
    match = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", line)
    return normalised(match.group(1)) if match else None


def with_dependencies(names: list[str]) -> dict[str, str]:
    """Installed versions of packages and of all they need."""
    versions, waiting = {}, list(names)
    while waiting:
        name = waiting.pop()
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # needed on another platform only, or an extra
        if name not in versions:
            versions[name] = distribution.version
            needs = [need for need in distribution.requires or [] if "extra ==" not in need]
            waiting += [found for need in needs if (found := requirement_name(need))]
    return versions


def host_versions() -> dict[str, str]:
    lines = (Path(COMFYUI) / "requirements.txt").read_text(encoding="utf-8").splitlines()
    named = [requirement_name(line) for line in lines if not line.lstrip().startswith("#")]
    return with_dependencies([name for name in named if name])


@pytest.mark.network
def test_installing_changes_nothing_of_comfyui(tmp_path):
    versions = host_versions()
    assert len(versions) > 50, "ComfyUI's requirements were not found installed"
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("".join(f"{n}=={v}\n" for n, v in versions.items()))
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    command += ["--quiet", "--report", str(report), "-c", str(constraints)]
    command += ["-r", str(ROOT / "requirements.txt")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "Max retries" in done.stderr or "Temporary failure" in done.stderr:
        pytest.skip("the package registry cannot be reached")
    assert done.returncode == 0, done.stderr[-2000:]
    planned = {
        normalised(item["metadata"]["name"]): item["metadata"]["version"]
        for item in json.loads(report.read_text())["install"]
    }
    changed = {n: v for n, v in planned.items() if versions.get(n, v) != v}
    assert not changed
    assert "controlnet-aux" in planned


def test_versions_are_read():
    assert requirement_name("torch>=2 ; python_version > '3'") == "torch"
    assert requirement_name("") is None
