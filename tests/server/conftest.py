"""Tests in this folder queue graphs on a real ComfyUI server."""

import os

import pytest


@pytest.fixture(scope="session")
def comfy_server(tmp_path_factory):
    """A ComfyUI on the CPU with this pack and stand-in models; all tests share it."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set (python3 dev.py test sets it)")
    from devtools.hosts import current_host
    from devtools.server import ComfyServer
    from devtools.standins import ensure_standins
    from devtools.workspace import prepare_workspace

    base = prepare_workspace(tmp_path_factory.mktemp("server"), [ensure_standins()])
    with ComfyServer(current_host(), base, cpu=True) as server:
        yield server
