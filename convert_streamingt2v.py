"""Convert StreamingT2V's file to safetensors: `python3 convert_streamingt2v.py --help`.

Run it with ComfyUI's own Python, from anywhere.
"""

import sys
from pathlib import Path

# Portable ComfyUI's Python does not add the script's folder. Appended, so that it hides no module.
sys.path.append(str(Path(__file__).resolve().parent))

try:
    from live2diff_core.streamingt2v.convert import main
except ModuleNotFoundError as error:
    if error.name not in ("safetensors", "torch"):
        raise
    sys.exit(f"error: {error.name} is missing; run this with the Python that runs ComfyUI")

if __name__ == "__main__":
    sys.exit(main())
