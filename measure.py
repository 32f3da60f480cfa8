"""Measure translated videos against their input: `python3 measure.py --help`.

Run it with ComfyUI's own Python, from anywhere.
"""

import sys
from pathlib import Path

# Portable ComfyUI's Python does not add the script's folder. Appended, so that it hides no module.
sys.path.append(str(Path(__file__).resolve().parent))

try:
    from live2diff_core.metrics.command import main
except ModuleNotFoundError as error:
    if error.name not in ("av", "numpy", "PIL", "safetensors", "torch", "tqdm"):
        raise
    sys.exit(f"error: {error.name} is missing; run this with the Python that runs ComfyUI")

if __name__ == "__main__":
    sys.exit(main())
