"""Loads the sample model: MODEL, CLIP, VAE and depth model, as core's loaders would."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.taesd.taesd
import torch
from torch import Tensor

from ..depth.model import DepthModel
from ..host.tensor_file import read_tensors
from .depth import SampleDepth
from .networks import LATENT_DEVIATION, TEXT, UNET, build_autoencoder

WEIGHTS = Path(__file__).parent / "weights"
UNET_FILE = "unet.safetensors"
TEXT_FILE = "text_encoder.safetensors"
VAE_FILE = "vae.safetensors"
DEPTH_FILE = "depth.safetensors"
MOTION_FILE = "sample_motion_module.safetensors"
_TABLE = "text_model.embeddings.token_embedding.weight"
# In the text encoder's file: the tokens that it knows, then what stands for all others.
TOKENS, ROWS, OTHER = "known_tokens", "known_rows", "other_row"


@dataclass(frozen=True)
class SampleModel:
    """The host's objects for the parts of the sample model."""

    model: Any
    clip: Any
    vae: Any
    depth_model: DepthModel


def load_sample_model() -> SampleModel:
    """Load all parts but the motion module, which 'Load Motion Module' reads.

    Raises:
        FileNotFoundError: the weights are not there; the message says what to do.
    """
    return SampleModel(_load_unet(), _load_clip(), _load_vae(), _load_depth())


def motion_module_path() -> Path | None:
    """Return the path of the sample's motion module; None where it is not there."""
    path = WEIGHTS / MOTION_FILE
    return path if path.is_file() else None


def _read(name: str) -> dict[str, Tensor]:
    path = WEIGHTS / name
    if not path.is_file():
        raise FileNotFoundError(
            f"The sample model's file {name} is missing from {WEIGHTS}. Make it with "
            "`python3 dev.py sample-model WORK`."
        )
    return read_tensors(path)


def _load_unet() -> Any:
    weights, management = _read(UNET_FILE), comfy.model_management
    config = comfy.supported_models.SD15(dict(UNET))
    device, offload = management.get_torch_device(), management.unet_offload_device()
    parameters = sum(tensor.numel() for tensor in weights.values())
    supported = list(config.supported_inference_dtypes)
    dtype = management.unet_dtype(
        device=device, model_params=parameters, supported_dtypes=supported
    )
    config.set_inference_dtype(dtype, management.unet_manual_cast(dtype, device, supported))
    model = config.get_model(weights, "", device=offload)
    patcher = comfy.model_patcher.CoreModelPatcher(
        model, load_device=device, offload_device=offload
    )
    model.load_model_weights(weights, "")
    return patcher


class _TextEncoder(comfy.sd1_clip.SDClipModel):
    """The host's encoder of prompts around the sample's text model."""

    def __init__(
        self,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=dict(TEXT),
            return_projected_pooled=False,
            model_options=model_options or {},
        )


class _Clip(comfy.sd1_clip.SD1ClipModel):
    """The sample's text encoder under the name that SD1.5's has."""

    def __init__(
        self,
        device: Any = "cpu",
        dtype: torch.dtype | None = None,
        model_options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            clip_name="l",
            clip_model=_TextEncoder,
        )


def _load_clip() -> Any:
    weights = full_table(_read(TEXT_FILE))
    target = SimpleNamespace(params={}, clip=_Clip, tokenizer=comfy.sd1_clip.SD1Tokenizer)
    state = {f"clip_l.transformer.{name}": tensor for name, tensor in weights.items()}
    parameters = sum(tensor.numel() for tensor in weights.values())
    return comfy.sd.CLIP(target, parameters=parameters, state_dict=state)


def full_table(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make the embedding of all 49,408 tokens of the few that were trained."""
    others = {k: v for k, v in weights.items() if k not in (TOKENS, ROWS, OTHER)}
    table = weights[OTHER].expand(TEXT["vocab_size"], -1).clone()
    table[weights[TOKENS].long()] = weights[ROWS]
    return {**others, _TABLE: table}


def _load_vae() -> Any:
    network = build_autoencoder()
    # The host divides latents by this, and multiplies them by SD1.5's factor before the UNet.
    scale = torch.tensor(comfy.latent_formats.SD15().scale_factor / LATENT_DEVIATION)
    network.load_state_dict({**_read(VAE_FILE), "vae_scale": scale, "vae_shift": torch.tensor(0.0)})
    # The host makes TAESD with all of its channels only; the narrow one takes its place.
    vae = comfy.sd.VAE(sd=comfy.taesd.taesd.TAESD().state_dict())
    vae.first_stage_model = network.eval().requires_grad_(False).to(vae.vae_dtype)
    management = comfy.model_management
    management.archive_model_dtypes(network)
    vae.patcher = comfy.model_patcher.CoreModelPatcher(
        network, load_device=vae.device, offload_device=management.vae_offload_device()
    )
    vae.size = None
    return vae


def _load_depth() -> DepthModel:
    network = SampleDepth()
    network.load_state_dict(_read(DEPTH_FILE))
    return DepthModel(network)
