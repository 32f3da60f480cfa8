"""Who may import whom: read from the source, so that nothing has to be installed."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = sorted(path.stem for path in (ROOT / "live2diff_core").glob("*.py"))
NODES = sorted(path.stem for path in (ROOT / "nodes").glob("*.py"))
HOST_ADAPTERS = {
    "checkpoint",
    "feature_bank_patch",
    "depth_model",
    "host_checks",
    "host_model",
    "host_vae",
    "model_fingerprint",
    "motion_module",
    "sd15_model",
    "live2diff_patch",
}
ENGINE = {
    "conditioning_fingerprint",
    "config",
    "applied_memory",
    "bank_memory",
    "bank_step",
    "control_hints",
    "feature_bank",
    "frame_conditions",
    "guidance",
    "kv_cache",
    "latent_checks",
    "memory_estimate",
    "memory_set",
    "model_weights",
    "motion_memory",
    "noise",
    "output_queue",
    "pipeline",
    "prompt_timeline",
    "prompt_track",
    "schedule",
    "session",
    "similar_frames",
    "state_file",
    "step_plan",
    "stream_registry",
    "stream_start",
    "temporal_attention",
    "window",
}
NODES_ONLY = {"comfy_api", "folder_paths", "server", "latent_preview", "nodes"}
LIBRARIES = {"torch", "numpy", "safetensors"}


def imports(path):
    """Modules a file imports anywhere: absolute names, and relative ones with their dots."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found |= {"." * node.level + name for name in names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    return found


def top(name):
    return name.split(".")[0]


@pytest.mark.parametrize("name", CORE)
def test_the_engine_knows_neither_the_nodes_nor_their_host(name):
    for module in imports(ROOT / "live2diff_core" / f"{name}.py"):
        if module.startswith("."):
            assert module.lstrip(".") in CORE and not module.startswith("..")
        else:
            assert top(module) not in NODES_ONLY, module
            assert top(module) not in ("live2diff_core", "devtools"), module


@pytest.mark.parametrize("name", sorted(ENGINE))
def test_the_engine_knows_torch_and_itself(name):
    for module in imports(ROOT / "live2diff_core" / f"{name}.py"):
        if module.startswith("."):
            assert module[1:] in ENGINE, f"{name} reaches beyond the engine through {module}"
        else:
            assert top(module) in LIBRARIES | set(sys.stdlib_module_names), module


@pytest.mark.parametrize("name", sorted(set(CORE) - HOST_ADAPTERS))
def test_only_the_adapters_know_comfyui(name):
    for module in imports(ROOT / "live2diff_core" / f"{name}.py"):
        assert top(module) != "comfy", module
        assert module.lstrip(".") not in HOST_ADAPTERS, f"{name} reaches ComfyUI through {module}"


@pytest.mark.parametrize("name", sorted(HOST_ADAPTERS & set(CORE)))
def test_adapters_know_the_host_and_no_other_library(name):
    allowed = LIBRARIES | {"comfy", "controlnet_aux"} | set(sys.stdlib_module_names)
    modules = {m for m in imports(ROOT / "live2diff_core" / f"{name}.py") if m[0] != "."}
    assert {top(module) for module in modules} <= allowed


@pytest.mark.parametrize("name", NODES)
def test_nodes_reach_the_engine_relatively(name):
    """ComfyUI loads the pack under a name of its own, where `live2diff_core` means nothing."""
    for module in imports(ROOT / "nodes" / f"{name}.py"):
        assert top(module) not in ("live2diff_core", "nodes", "devtools"), module
        if module.startswith(".."):
            assert module[2:].split(".")[0] == "live2diff_core", module


def test_the_entry_point_imports_nothing_until_it_is_called():
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_reader_of_imports_sees_them_all(tmp_path):
    source = (
        "import a.b\nfrom c import d\nfrom .e import f\nfrom . import g\ndef h():\n    import i\n"
    )
    path = tmp_path / "source.py"
    path.write_text(source, encoding="utf-8")
    assert imports(path) == {"a.b", "c", ".e", ".g", "i"}
