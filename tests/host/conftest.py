"""Tests in this folder run inside ComfyUI's process: its modules, on the CPU, with our pack."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALIAS = "comfyui_live2diff"
COMFYUI = os.environ.get("COMFYUI_PATH")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Without a ComfyUI there is nothing to import; the skip is reported by test_host_present."""
    if COMFYUI is None and collection_path.name != "test_host_present.py":
        return collection_path.suffix == ".py" and collection_path.name.startswith("test_") or None
    return None


if COMFYUI is not None:
    # First, because our `nodes/` and ComfyUI's `nodes.py` share a name.
    sys.path.insert(0, COMFYUI)
    argv, sys.argv = sys.argv, sys.argv[:1]
    import comfy.cli_args

    comfy.cli_args.args.cpu = True
    sys.argv = argv
    # As main.py does: later imports put ComfyUI's comfy/ on the path, whose utils.py would hide it.
    import utils.install_util  # noqa: F401


def load_pack():
    """Load the pack by file location under an alias, as ComfyUI does."""
    if ALIAS not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            ALIAS, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[ALIAS] = module
        spec.loader.exec_module(module)
    return sys.modules[ALIAS]


@pytest.fixture(scope="session")
def pack():
    """The pack as ComfyUI sees it; its modules are `comfyui_live2diff.*`."""
    return load_pack()


@pytest.fixture(scope="session")
def golden(pack):
    """devtools.golden with the pack's engine: (module, engine)."""
    from devtools import golden as module

    return module, module.load_engine(f"{ALIAS}.live2diff_core")


@pytest.fixture(scope="session")
def motion(golden, golden_folder):
    """The traces' motion module, with its depth encoder."""
    _, engine = golden
    return engine.live2diff_patch.load_motion_module(str(golden_folder / "live2diff.ckpt"))


@pytest.fixture
def sd15(golden, golden_folder):
    """A small SD1.5 ModelPatcher with the traces' weights, float32 on the CPU."""
    module, _ = golden
    return module.build_sd15(golden_folder / "unet.safetensors")


@pytest.fixture
def vae(pack):
    """A small VAE with random weights."""
    from live_stream_inputs import TinyVAE

    return TinyVAE()


@pytest.fixture
def streams(pack):
    """The registry of live streams, empty before and after."""
    from host_stream import core

    registry = core("run.registry").STREAMS
    registry.clear()
    yield registry
    registry.clear()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Input, output and temp folders of the test's own; the folder that they are in."""
    import folder_paths

    for name in ("output", "input", "temp"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(folder_paths, f"{name}_directory", str(tmp_path / name))
    return tmp_path


@pytest.fixture(scope="session")
def t2v_files(pack, tmp_path_factory):
    """A folder of stand-ins of StreamingT2V and of the enhancer."""
    from devtools.standin_t2v import write_config, write_enhancer, write_t2v

    folder = tmp_path_factory.mktemp("streamingt2v")
    write_t2v(folder / "streaming_t2v.ckpt")
    write_config(folder / "config.json")
    write_enhancer(folder / "non_ema_0035000.pth")
    return folder


@pytest.fixture(scope="session")
def videos(t2v_files):
    """These stand-ins, loaded by the nodes."""
    from long_videos import LongVideos, load_enhancer, load_t2v

    return LongVideos(*load_t2v(t2v_files), load_enhancer(t2v_files))
