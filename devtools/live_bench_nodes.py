"""A custom node for a server that live streams are measured on: models that do nothing.

Copied into its custom_nodes. The UNet predicts that its input has no noise, after a wait; the VAE
keeps one of 8x8 pixels. So what comes out is what went in, in squares, with the little noise that
the schedule adds, and hardly any of the time is theirs.
"""

import importlib.util
import time
from pathlib import Path

import comfy.model_patcher
import folder_paths
import torch
from torch.nn.functional import interpolate

# So much stronger than the noise of a stream's lowest noise levels.
SCALE = 20.0


def _random_sd15():
    """The developers' tool that builds a MODEL, from the pack beside this file."""
    for folder in folder_paths.get_folder_paths("custom_nodes"):
        path = Path(folder, "comfyui-live2diff", "devtools", "golden_models.py")
        if path.is_file():
            spec = importlib.util.spec_from_file_location("live_bench_models", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module.random_sd15("cpu", torch.float32, width=32)
    raise FileNotFoundError("comfyui-live2diff is not among the custom nodes")


class SquareCoder(torch.nn.Module):
    """8x8 pixels to one latent pixel and back."""

    def __init__(self):
        """Make a weight, because the host measures models by their weights."""
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def encode(self, pixels):
        """Encode [1, 3, H, W] in 0..1."""
        colours = pixels[..., 4::8, 4::8] * SCALE
        return torch.cat([colours, torch.zeros_like(colours[:, :1])], dim=1)

    def decode(self, latents):
        """Decode [1, 4, h, w]."""
        return interpolate((latents[:, :3] / SCALE).clamp(0.0, 1.0), scale_factor=8)


class SquareVAE:
    """What a stream uses of ComfyUI's VAE."""

    latent_dim, latent_channels = 2, 4
    vae_dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self):
        """Make the coder and the host's handle of it."""
        self.first_stage_model = SquareCoder()
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=self.device
        )
        self.memory_used_encode = self.memory_used_decode = lambda shape, dtype: 1000
        self.process_input = self.process_output = lambda image: image


class LiveBenchModels:
    """Makes the models and a prompt."""

    CATEGORY = "tests"
    RETURN_TYPES = ("MODEL", "VAE", "CONDITIONING")
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls):  # noqa: N802
        """Ask for the milliseconds that one call of the model takes."""
        return {"required": {"milliseconds": ("INT", {"default": 0, "max": 10_000})}}

    def make(self, milliseconds):
        """Make them."""
        model = _random_sd15()

        def forward(x, *_, **__):
            if milliseconds:
                time.sleep(milliseconds / 1000.0)
            return torch.zeros_like(x)

        model.model.diffusion_model.forward = forward
        return model, SquareVAE(), [[torch.zeros(1, 77, 768), {}]]


NODE_CLASS_MAPPINGS = {"LiveBenchModels": LiveBenchModels}
