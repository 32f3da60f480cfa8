"""A custom node for tests: pictures as the graph has them, to the last bit.

Copied into a test server's custom_nodes; files for people round to 8 bits.
"""

from pathlib import Path

import folder_paths
from safetensors.torch import save_file


class ProbeSavePictures:
    CATEGORY = "tests"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "save"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        return {"required": {"images": ("IMAGE",), "name": ("STRING", {"default": "probe"})}}

    def save(self, images, name):
        path = Path(folder_paths.get_output_directory(), f"{name}.safetensors")
        save_file({"images": images.cpu().contiguous()}, str(path))
        return {"ui": {"text": [str(path)]}}


NODE_CLASS_MAPPINGS = {"ProbeSavePictures": ProbeSavePictures}
