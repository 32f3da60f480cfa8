"""requirements.txt and pyproject.toml name what the pack imports, and nothing else."""

import ast
import re
import sys
from pathlib import Path

from imported import imports, top

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("nodes", "live2diff_core", "live_page", "folder_queue")
FILES = ("__init__.py", "queue_folder.py", "measure.py", "convert_streamingt2v.py")
# Modules of ComfyUI itself. Its `nodes` has the name of a folder of ours.
HOST = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "latent_preview", "server"}
# Imported where they are used, and only there: metrics that need them say so when they are missing.
# torchvision is the host's own requirement.
OPTIONAL = {"cv2", "scenedetect", "torchvision", "pyvirtualcam", "cyndilib"}
# Where a distribution has another name than the module in it.
DISTRIBUTIONS = {"PIL": "pillow", "controlnet_aux": "controlnet-aux"}


def imported():
    """Names of the distributions that the pack imports."""
    paths = [ROOT / name for name in FILES]
    paths += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    modules = {top(name) for path in paths for name in imports(path) if not name.startswith(".")}
    foreign = modules - HOST - OPTIONAL - {*FOLDERS} - set(sys.stdlib_module_names)
    return {DISTRIBUTIONS.get(module, module) for module in foreign}


def imported_at_once(path):
    """Modules that a file imports as soon as it is imported itself."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    return {
        top(name)
        for name in [
            *names,
            *(n.module for n in body if isinstance(n, ast.ImportFrom) and n.module),
        ]
    }


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


def test_what_is_optional_is_imported_in_functions_only():
    paths = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    for path in paths:
        assert not imported_at_once(path) & OPTIONAL, path
    used = {top(name) for path in paths for name in imports(path)}
    assert used >= OPTIONAL


def test_both_files_require_the_same():
    assert sorted(dependencies()) == sorted(required())
