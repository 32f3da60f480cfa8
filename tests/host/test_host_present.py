import os

import pytest


def test_comfyui_is_there():
    if "COMFYUI_PATH" not in os.environ:
        pytest.skip("COMFYUI_PATH is not set: all host tests are left out (see dev.py test)")
    assert os.path.isfile(os.path.join(os.environ["COMFYUI_PATH"], "main.py"))
