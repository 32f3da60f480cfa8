"""Shared by all tests: where the recorded traces are, and the import paths."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "tests" / "data"

if str(ROOT) not in sys.path:
    # Behind everything else: our `nodes/` must not hide ComfyUI's `nodes.py`.
    sys.path.append(str(ROOT))


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """The recorded traces of the reference code, as copied into the repository."""
    return DATA / "live2diff"
