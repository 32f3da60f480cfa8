"""Who may import whom."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from imported import imports, top

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "live2diff_core"
MODULES = sorted(path.relative_to(CORE) for path in CORE.rglob("*.py"))
STANDARD = set(sys.stdlib_module_names)

# What a folder may import: folders of ours, and libraries.
FOLDERS = {
    "stream": ({"stream"}, {"torch", "numpy"}),
    "host": ({"host", "stream"}, {"torch", "comfy", "safetensors"}),
    "live2diff": ({"live2diff", "stream", "host"}, {"torch", "einops"}),
    "feature_bank": ({"feature_bank", "stream", "host"}, {"torch"}),
    "depth": ({"depth", "host"}, {"torch"}),
    "video": ({"video"}, {"av", "PIL", "numpy"}),
    "metrics": ({"metrics", "video", "depth", "host"}, {"torch", "numpy", "PIL"}),
    "sample_model": ({"sample_model", "depth", "host"}, {"torch", "comfy"}),
    "run": (
        {"run", "stream", "host", "depth", "video"},
        {"torch", "numpy", "safetensors", "filelock"},
    ),
    "live": (
        {"live", "run", "stream", "video"},
        {"torch", "numpy", "av", "safetensors"},
    ),
    "streamingt2v": (
        {"streamingt2v", "stream", "host", "video", "run"},
        {"torch", "numpy", "diffusers", "safetensors"},
    ),
}
# Files that know the host, in folders that do not.
FILES = {
    "live2diff/patch.py": {"comfy"},
    "live2diff/motion_module.py": {"comfy"},
    "feature_bank/patch.py": {"comfy"},
    "depth/model.py": {"comfy", "controlnet_aux"},
    "streamingt2v/host_parts.py": {"comfy"},
    "streamingt2v/opened.py": {"comfy"},
    "live/device_outputs.py": {"pyvirtualcam", "cyndilib"},
    "metrics/host_models.py": {"comfy"},
    "metrics/command.py": {"comfy", "tqdm"},
    "metrics/flow.py": {"cv2"},
    "metrics/scene_cuts.py": {"cv2", "scenedetect"},
    "metrics/raft.py": {"torchvision"},
}
NODES_ONLY = {"comfy_api", "folder_paths", "server", "latent_preview", "nodes"}
# The live page's routes see live streams only, and of the nodes only the list knows them.
PAGE = ROOT / "live_page"
PAGE_LIBRARIES, PAGE_SHARES = {"aiohttp", "av", "numpy", "PIL"}, {"live", "video"}
PAGE_ROUTES = ("__init__.py", "..live_page.routes")
# The command runs beside the server, and takes one file of the engine.
QUEUE = ROOT / "folder_queue"
QUEUE_LIBRARIES, QUEUE_SHARES = {"aiohttp", "filelock", "tqdm", "av"}, "live2diff_core.video.folder"


# The command runs beside the server, and takes the engine as a library.
TRAINING = ROOT / "training"
TRAINING_LIBRARIES = {"torch", "numpy", "safetensors", "tqdm", "yaml"}
TRAINING_SHARES = {"stream", "host", "live2diff", "depth", "video", "run", "sample_model"}
# Files that know the host, that run before it is loaded, or that use the developers' tools.
TRAINING_FILES = {
    "base_model.py": {"comfy"},
    "curves.py": {"accelerate"},
    "dry_run.py": {"comfy", "devtools"},
    "encoding.py": {"comfy"},
    "initial.py": {"comfy"},
    "loop.py": {"accelerate"},
    "processes.py": {"accelerate"},
    "recomputing.py": {"comfy"},
    "window_model.py": {"comfy"},
}


def own_imports(path):
    """Modules of the engine that a module of it imports, as `folder.name`."""
    found = set()
    for name in imports(CORE / path):
        if name.startswith(".."):
            assert not name.startswith("..."), f"{path} leaves the engine: {name}"
            folder, _, module = name[2:].partition(".")
            assert module, f"{path} imports a folder rather than a module of it: {name}"
            found.add(f"{folder}.{module}")
        elif name.startswith("."):
            found.add(f"{path.parent.name}.{name[1:]}")
    return found


def test_every_module_lies_in_a_folder_with_rules():
    assert {path.parts[0] for path in MODULES if len(path.parts) > 1} == set(FOLDERS)
    outside = [path for path in MODULES if len(path.parts) == 1]
    assert outside == [Path("__init__.py")], "a module belongs into one of the folders"
    assert max(len(path.parts) for path in MODULES) == 2, "folders are one level deep"


@pytest.mark.parametrize("path", [path for path in MODULES if len(path.parts) == 2], ids=str)
def test_a_folder_imports_what_it_may(path):
    folders, libraries = FOLDERS[path.parts[0]]
    allowed = libraries | FILES.get(path.as_posix(), set()) | STANDARD
    foreign = {top(name) for name in imports(CORE / path) if not name.startswith(".")}
    assert foreign <= allowed, f"{path} may not import {foreign - allowed}"
    for module in own_imports(path):
        assert top(module) in folders, f"{path} may not import {module}"
        assert (CORE / f"{module.replace('.', '/')}.py").is_file(), module
    assert not foreign & NODES_ONLY


def test_there_are_no_circles_between_files_or_folders():
    files = {f"{p.parent.name}.{p.stem}": own_imports(p) for p in MODULES if len(p.parts) == 2}
    # Raises CycleError, which names the circle.
    assert len(list(TopologicalSorter(files).static_order())) == len(files)
    folders = {}
    for module, needed in files.items():
        folders.setdefault(top(module), set()).update(map(top, needed))
    list(TopologicalSorter({k: v - {k} for k, v in folders.items()}).static_order())


@pytest.mark.parametrize("path", sorted((ROOT / "nodes").glob("*.py")), ids=lambda path: path.name)
def test_nodes_reach_the_engine_relatively(path):
    """ComfyUI loads the pack under a name of its own, where `live2diff_core` means nothing."""
    for module in imports(path):
        assert top(module) not in ("live2diff_core", "nodes", "devtools"), module
        if module.startswith("..") and (path.name, module) != PAGE_ROUTES:
            assert module[2:].split(".")[0] == "live2diff_core", module


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.py")), ids=lambda path: path.name)
def test_the_live_page_imports_what_it_may(path):
    for module in imports(path):
        if module.startswith("..") and module.strip("."):
            pack, folder = module[2:].split(".")[:2]
            assert pack == "live2diff_core" and folder in PAGE_SHARES, f"{path}: {module}"
        elif module.startswith("."):
            assert not module[1:] or (PAGE / f"{module[1:]}.py").is_file(), module
        else:
            assert top(module) in PAGE_LIBRARIES | STANDARD, f"{path} may not import {module}"


@pytest.mark.parametrize("path", sorted(QUEUE.glob("*.py")), ids=lambda path: path.name)
def test_the_folder_queue_imports_what_it_may(path):
    for module in imports(path):
        if module.startswith("."):
            assert (QUEUE / f"{module[1:]}.py").is_file(), module
        elif module != QUEUE_SHARES:
            assert top(module) in QUEUE_LIBRARIES | STANDARD, f"{path} may not import {module}"


@pytest.mark.parametrize("path", sorted(TRAINING.glob("*.py")), ids=lambda path: path.name)
def test_training_imports_what_it_may(path):
    allowed = TRAINING_LIBRARIES | TRAINING_FILES.get(path.name, set()) | STANDARD
    for module in imports(path):
        if module.startswith("."):
            assert (TRAINING / f"{module[1:]}.py").is_file(), module
        elif top(module) == "live2diff_core":
            assert module.split(".")[1] in TRAINING_SHARES, f"{path} may not import {module}"
        else:
            assert top(module) in allowed, f"{path} may not import {module}"


def test_there_are_no_circles_in_training_and_nothing_imports_it():
    found = {p.stem: imports(p) for p in TRAINING.glob("*.py")}
    files = {name: {m[1:] for m in used if m.startswith(".")} for name, used in found.items()}
    list(TopologicalSorter(files).static_order())
    for path in (*MODULES, *(ROOT / "nodes").glob("*.py")):
        assert "training" not in map(top, imports(CORE / path))


def test_what_the_folder_queue_shares_imports_the_standard_library_only():
    *packages, module = QUEUE_SHARES.split(".")
    paths = [ROOT.joinpath(*packages[: n + 1], "__init__.py") for n in range(len(packages))]
    for path in [*paths, ROOT.joinpath(*packages, f"{module}.py")]:
        assert {top(name) for name in imports(path)} <= STANDARD, path


def test_the_entry_point_imports_nothing_until_it_is_called():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_reader_of_imports_sees_them_all(tmp_path):
    source = (
        "import a.b\nfrom c import d\nfrom .e import f\nfrom . import g\ndef h():\n    import i\n"
        "    importlib.util.find_spec('j')\n"
    )
    path = tmp_path / "source.py"
    path.write_text(source, encoding="utf-8")
    assert imports(path) == {"a.b", "c", ".e", ".g", "i", "j"}
