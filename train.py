"""Train a Live2Diff motion module: `python3 train.py --help`.

Run it with ComfyUI's own Python, from anywhere.
"""

import sys
from pathlib import Path

# Portable ComfyUI's Python does not add the script's folder. Appended, so that it hides no module.
sys.path.append(str(Path(__file__).resolve().parent))

_HOST = ("av", "numpy", "PIL", "safetensors", "torch", "tqdm", "yaml")
_OWN = ("accelerate", "tensorboard")

try:
    from training.command import main
except ModuleNotFoundError as error:
    if error.name not in _HOST:
        raise
    sys.exit(f"error: {error.name} is missing; run this with the Python that runs ComfyUI")

if __name__ == "__main__":
    try:
        sys.exit(main())
    except ModuleNotFoundError as error:
        if error.name not in _OWN:
            raise
        sys.exit(
            f"error: {error.name} is missing; install it with: pip install -r "
            f"{Path(__file__).resolve().parent / 'requirements-training.txt'}"
        )
