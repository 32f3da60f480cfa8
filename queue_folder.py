"""Translate all videos of a folder on a ComfyUI server: `python3 queue_folder.py --help`.

Run it with ComfyUI's own Python, from anywhere.
"""

import sys
from pathlib import Path

# The Python of portable ComfyUI does not look beside the script. Last, so that nothing is hidden.
sys.path.append(str(Path(__file__).resolve().parent))

try:
    from folder_queue.command import main
except ModuleNotFoundError as error:
    if error.name not in ("aiohttp", "av", "tqdm"):
        raise
    sys.exit(f"error: {error.name} is missing; run this with the Python that runs ComfyUI")

if __name__ == "__main__":
    sys.exit(main())
