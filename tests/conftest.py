"""Shared by all tests: where the recorded traces are, and the import paths."""

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

# The models here are so small that a second thread waits longer than it works.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The recorded traces of the reference code, as copied into the repository."""
    return DATA / "live2diff"
