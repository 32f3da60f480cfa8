"""requirements.txt and pyproject.toml name what the pack imports, and nothing else."""

import re
import sys
from pathlib import Path

from imported import imports, top

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("nodes", "live2diff_core", "folder_queue")
FILES = ("__init__.py", "queue_folder.py")
# Modules of ComfyUI itself. Its `nodes` has the name of a folder of ours.
HOST = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "server"}
# Where a distribution has another name than the module in it.
DISTRIBUTIONS = {"PIL": "pillow", "controlnet_aux": "controlnet-aux"}


def imported():
    """Names of the distributions that the pack imports."""
    paths = [ROOT / name for name in FILES]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    modules = {top(name) for path in paths for name in imports(path) if not name.startswith(".")}
    foreign = modules - HOST - {*FOLDERS} - set(sys.stdlib_module_names)
    return {DISTRIBUTIONS.get(module, module) for module in foreign}


def required():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def dependencies():
    """Dependencies in pyproject.toml; Python 3.10 has no reader of TOML."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    entries = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL).group(1)
    return re.findall(r'"(.+)"', entries)


def test_what_is_imported_is_required_and_nothing_else():
    names = [re.match(r"[\w.-]+", line).group().lower() for line in required()]
    assert sorted(names) == sorted(imported())


def test_both_files_require_the_same():
    assert sorted(dependencies()) == sorted(required())
