"""Run a module inside the venv with the import path the tools need: `python devtools/run.py NAME`.

`python -m NAME` puts the current folder first on sys.path, where the pack's `nodes/` would hide
ComfyUI's `nodes.py`; running by path puts `devtools/` there. This drops that entry, so that only
PYTHONPATH decides, which dev.py sets to: the host's overlay, the host, this checkout.
"""

import runpy
import sys

if __name__ == "__main__":
    sys.path.pop(0)
    sys.argv.pop(0)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
