"""Shared by all tests: where the recorded traces are, and the import paths."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"

# Behind everything else: our `nodes/` must not hide ComfyUI's `nodes.py`.
for folder in (ROOT, ROOT / "tests" / "support"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

# So that a terminated run stops its servers, as one that is interrupted with Ctrl-C does.
signal.signal(signal.SIGTERM, signal.default_int_handler)
# A run in the background may have been started with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The models here are so small that a second thread waits longer than it works, also in servers.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Each file there starts servers of its own.
OWN_SERVERS = (ROOT / "tests" / "server", ROOT / "tests" / "hostile")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Let one of several workers run all tests of a server, so that each server starts once."""
    for item in items:
        if "comfy_server" in item.fixturenames:
            item.add_marker(pytest.mark.xdist_group("server"))
        elif item.path.parent in OWN_SERVERS:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def unhidden_packages():
    """Drop the pack's module where it hides a package of ours: pytest names it by its folder."""
    if getattr(sys.modules.get("training"), "__file__", None) == str(ROOT / "__init__.py"):
        del sys.modules["training"]


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The recorded traces of the reference code, as copied into the repository."""
    return DATA / "live2diff"


@pytest.fixture(scope="session")
def comfy_server(tmp_path_factory):
    """A ComfyUI on the CPU with this pack and stand-in models; its tests share it."""
    from comfy_servers import standin_server

    with standin_server(tmp_path_factory.mktemp("server")) as server:
        yield server
