"""Real ComfyUI servers with this pack and stand-in models."""

import os
from contextlib import contextmanager

import pytest


def standin_base(folder):
    """Prepare `folder` as a server's base directory; skip the test where no ComfyUI was chosen."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set (python3 dev.py test sets it)")
    from devtools.standins import ensure_standins
    from devtools.workspace import prepare_workspace

    return prepare_workspace(folder, [ensure_standins()])


@contextmanager
def standin_server(folder):
    """Run a server on the CPU in `folder`."""
    base = standin_base(folder)
    from devtools.hosts import current_host
    from devtools.server import ComfyServer

    with ComfyServer(current_host(), base, cpu=True) as server:
        yield server
