"""Stand-in model files with random weights, in the formats and layouts of the real ones.

Runs inside the venv. The files have their own folder in the cache, keyed by the code that
generates them, and are never written among a user's models.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

from devtools import standin_layouts, standin_t2v, standin_weights
from devtools.console import say
from devtools.paths import REPO, cache_dir, exclusive, require_free_space
from devtools.standin_weights import Tensors

WIDTHS = (320, 320, 320, 320)
SOURCES = (
    *("standins.py", "standin_layouts.py", "standin_weights.py", "standin_midas.py"),
    "standin_t2v.py",
)
GIGABYTES = 2.0
LORA_RANK = 4
# The scale factor of the autoencoder's latents in an SD1.5 checkpoint.
VAE_SCALE = 0.18215

CHECKPOINT = "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
MOTION_MODULE = "live2diff/live2diff.ckpt"
LCM_LORA = "loras/lcm-lora-sdv1-5.safetensors"
STYLE_LORA = "loras/your-style-lora.safetensors"
CONTROLNET = "controlnet/control_v11p_sd15_canny_fp16.safetensors"
TAESD_ENCODER = "vae_approx/taesd_encoder.safetensors"
TAESD_DECODER = "vae_approx/taesd_decoder.safetensors"
T2V = "streamingt2v/streaming_t2v.ckpt"
T2V_CONFIG = "streamingt2v/config.json"
ENHANCER = "streamingt2v/non_ema_0035000.pth"
MIDAS = "midas/dpt_hybrid-midas-501f0c75.pt"


def standins_dir() -> Path:
    """Return the models folder of the stand-ins, laid out like ComfyUI's; it may not exist yet."""
    digest = hashlib.sha256()
    for name in SOURCES:
        path = REPO / "devtools" / name
        if path.is_file():
            digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return cache_dir() / f"standins-{digest.hexdigest()[:12]}" / "models"


def ensure_standins() -> Path:
    """Return the stand-ins' models folder; generate missing files first (a minute)."""
    models = standins_dir()
    with exclusive(models.parent.name):
        missing = {name: write for name, write in WRITERS.items() if not (models / name).is_file()}
        if missing:
            require_free_space(cache_dir(), GIGABYTES, "the stand-in models")
            say(f"Generating stand-in models in {models} ...")
        for name, write in missing.items():
            _write_atomically(models / name, write)
    return models


def _write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"part-{path.name}")
    write(part)
    os.replace(part, path)


def write_checkpoint(path: Path) -> None:
    """Write an SD1.5 checkpoint: UNet, CLIP-L, and TAESD in place of the large autoencoder."""
    unet = standin_weights.random_tensors(standin_layouts.unet_shapes(WIDTHS))
    standin_weights.wire_denoiser(unet)
    clip = standin_weights.random_tensors(standin_layouts.clip_shapes())
    encoder, decoder = standin_weights.autoencoder_tensors()
    vae = {f"first_stage_model.taesd_encoder.{k}": v.half() for k, v in encoder.items()}
    vae |= {f"first_stage_model.taesd_decoder.{k}": v.half() for k, v in decoder.items()}
    vae["first_stage_model.vae_scale"] = torch.tensor(VAE_SCALE)
    vae["first_stage_model.vae_shift"] = torch.tensor(0.0)
    save_file({**unet, **clip, **vae}, path)


def write_motion_module(path: Path) -> None:
    """Write a pickle with the layout of the published live2diff.ckpt."""
    tensors = standin_weights.motion_module_tensors(WIDTHS)
    state = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"global_step": 0, "state_dict": state}, path)


def write_lcm_lora(path: Path) -> None:
    """Write a kohya-format LoRA of only the UNet, like LCM-LoRA."""
    save_file(lora_tensors("lcm", text=False), path)


def write_style_lora(path: Path) -> None:
    """Write a kohya-format LoRA of the UNet and the text encoder, like style LoRAs."""
    save_file(lora_tensors("style", text=True), path)


def lora_tensors(seed: str, text: bool) -> Tensors:
    """Draw a LoRA that changes each layer by about a tenth, but not the UNet's wired channels."""
    shapes = standin_layouts.unet_shapes(WIDTHS) | standin_layouts.clip_shapes()
    tensors: Tensors = {}
    for name, target in standin_layouts.lora_targets(WIDTHS, text):
        c_out, c_in, *kernel = shapes[target]
        # As in kohya's files, the down half has the layer's kernel, and the up half is 1x1.
        pair = standin_weights.random_tensors(
            {
                f"{seed}.{name}.down": (LORA_RANK, c_in, *kernel),
                f"{seed}.{name}.up": (c_out, LORA_RANK, *(1 for _ in kernel)),
            }
        )
        down, up = pair.values()
        if target.endswith(standin_weights.WIRED_ENDS):
            up[: standin_weights.WIRED] = 0
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = up * 0.1
        tensors[f"{name}.alpha"] = torch.tensor(float(LORA_RANK)).half()
    return tensors


def write_controlnet(path: Path) -> None:
    """Write a ControlNet 1.1 in LDM layout whose output is a faint texture."""
    tensors = standin_weights.random_tensors(standin_layouts.controlnet_shapes(WIDTHS))
    standin_weights.protect_wired_rows(tensors)
    for name, tensor in tensors.items():
        if name.endswith("weight") and ("zero_convs" in name or "middle_block_out" in name):
            tensor.mul_(0.1)[: standin_weights.WIRED] = 0
    save_file(tensors, path)


def write_taesd_encoder(path: Path) -> None:
    """Write TAESD's encoder, with the published file's tensor names."""
    save_file(standin_weights.autoencoder_tensors()[0], path)


def write_taesd_decoder(path: Path) -> None:
    """Write TAESD's decoder, with the published file's tensor names."""
    save_file(standin_weights.autoencoder_tensors()[1], path)


def write_midas(path: Path) -> None:
    """Write MiDaS DPT-hybrid."""
    from devtools import standin_midas

    standin_midas.write(path)


WRITERS: dict[str, Callable[[Path], None]] = {
    CHECKPOINT: write_checkpoint,
    MOTION_MODULE: write_motion_module,
    LCM_LORA: write_lcm_lora,
    STYLE_LORA: write_style_lora,
    CONTROLNET: write_controlnet,
    TAESD_ENCODER: write_taesd_encoder,
    TAESD_DECODER: write_taesd_decoder,
    MIDAS: write_midas,
    T2V: standin_t2v.write_t2v,
    T2V_CONFIG: standin_t2v.write_config,
    ENHANCER: standin_t2v.write_enhancer,
}

if __name__ == "__main__":
    say(str(ensure_standins()))
