"""The parts of StreamingT2V as ComfyUI's own objects, each under the host's memory management."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.clip_vision
import comfy.diffusers_convert
import comfy.model_management
import comfy.sd
import comfy.sd1_clip
import comfy.text_encoders.sd2_clip
import torch
from torch import Tensor, nn

from ..host.whole_patcher import whole_patcher
from .appearance import IMAGE_SIZE, clip_pixels
from .denoiser import Denoiser, build_denoiser
from .enhancer_file import EnhancerUNet, build_enhancer
from .released_file import Released, read_released
from .weights import CheckpointError, shape_of

# Widths of a head where no config.json says otherwise: OpenCLIP's ViT-H, and its text model.
_VISION_HEAD, _TEXT_HEAD = 80, 64
# Of ModelScope's UNet, about, which the enhancer's is but for a few layers.
_ENHANCER_PARAMETERS = 1_410_000_000
# Words of the host's tokenizer.
_WORDS = 49408


@dataclass(frozen=True)
class LoadedT2V:
    """A loaded StreamingT2V, without text encoder and VAE, which are the host's.

    Attributes:
        name: of the file.
        patcher: the host's handle of the `Denoiser`.
        clip_vision: the host's CLIP_VISION.
    """

    name: str
    patcher: Any
    clip_vision: Any

    @property
    def denoiser(self) -> Denoiser:
        """The network itself."""
        return self.patcher.model

    def embed(self, pictures: Tensor) -> Tensor:
        """Load the image encoder, and embed pictures [N, 3, H, W] in -1..1 to [N, E] float32."""
        vision = self.clip_vision
        comfy.model_management.load_models_gpu([vision.patcher])
        pixels = clip_pixels(pictures.float()).to(vision.load_device)
        return vision.model(pixel_values=pixels)[2].float()


def load_t2v(path: Path) -> tuple[LoadedT2V, Any, Any]:
    """Load a released file.

    Returns:
        The model, and the host's CLIP and VAE.

    Raises:
        CheckpointError: it cannot be used; the message says why.
    """
    released = read_released(path)
    management = comfy.model_management
    device, waiting = management.get_torch_device(), management.unet_offload_device()
    denoiser = build_denoiser(released, compute_dtype(device, released))
    model = LoadedT2V(
        path.name, whole_patcher(denoiser, device, waiting), build_clip_vision(released)
    )
    return model, build_clip(released), build_vae(released)


@dataclass(frozen=True)
class LoadedEnhancer:
    """A loaded video enhancer, without text encoder and VAE.

    Attributes:
        name: of the file.
        patcher: the host's handle of the `EnhancerUNet`.
    """

    name: str
    patcher: Any

    @property
    def network(self) -> EnhancerUNet:
        """The network itself."""
        return self.patcher.model


def load_enhancer(path: Path) -> LoadedEnhancer:
    """Load the enhancer's UNet.

    Raises:
        CheckpointError: it cannot be used; the message says why.
    """
    management = comfy.model_management
    device = management.get_torch_device()
    network = build_enhancer(path, host_dtype(device, _ENHANCER_PARAMETERS))
    patcher = whole_patcher(network, device, management.unet_offload_device())
    return LoadedEnhancer(path.name, patcher)


def compute_dtype(device: torch.device, released: Released) -> torch.dtype:
    """Return the dtype in which the host lets a UNet of this size compute on `device`."""
    parts = (released.parts["base_model"], released.parts["unet"])
    return host_dtype(device, sum(tensor.numel() for part in parts for tensor in part.values()))


def host_dtype(device: torch.device, parameters: int) -> torch.dtype:
    """Return the dtype in which the host lets a UNet of so many parameters compute."""
    return comfy.model_management.unet_dtype(
        device=device,
        model_params=parameters,
        supported_dtypes=[torch.float16, torch.bfloat16, torch.float32],
    )


def build_clip_vision(released: Released) -> Any:
    """Build the host's CLIP_VISION of a released file.

    Raises:
        CheckpointError: tensors are missing, or shapes contradict each other.
    """
    tensors = released.parts["image_encoder"]
    with _naming(released, "the image encoder"):
        patch = shape_of(tensors, "model.visual.conv1.weight", 4)
        width, layers = patch[0], _count(tensors, "model.visual.transformer.resblocks.")
        vision = comfy.clip_vision.ClipVisionModel(
            {
                "model_type": "clip_vision_model",
                "hidden_act": "gelu",
                "hidden_size": width,
                "image_size": IMAGE_SIZE,
                "intermediate_size": shape_of(
                    tensors, "model.visual.transformer.resblocks.0.mlp.c_fc.weight", 2
                )[0],
                "num_attention_heads": width
                // released.setting("clip_vision", "head_width", _VISION_HEAD),
                "num_channels": patch[1],
                "num_hidden_layers": layers,
                "patch_size": patch[2],
                "projection_dim": shape_of(tensors, "model.visual.proj", 2)[1],
            }
        )
        visual = {k.removeprefix("model."): t for k, t in tensors.items()}
        renamed = comfy.clip_vision.convert_to_transformers(visual, "visual.")
        _fill(vision.model, renamed, "the image encoder")
    return vision


def build_clip(released: Released) -> Any:
    """Build the host's CLIP of a released file: the text model of Stable Diffusion 2.

    Its last layer is the one before the last of OpenCLIP; the norm behind it applies.

    Raises:
        CheckpointError: tensors are missing, or shapes contradict each other.
    """
    tensors = dict(released.parts["text_encoder"])
    with _naming(released, "the text encoder"):
        words = "text_model.embeddings.token_embedding.weight"
        known, width = shape_of(tensors, words, 2)
        if known > _WORDS:
            raise CheckpointError(f"it knows {known} words, and the host's tokenizer {_WORDS}.")
        tensors[words] = nn.functional.pad(tensors[words], (0, 0, 0, _WORDS - known))
        tensors["text_projection.weight"] = torch.eye(width)
        layers = _count(tensors, "text_model.encoder.layers.")
        config = _text_config(tensors, width, layers)
        heads = width // _TEXT_HEAD or 1
        config["num_attention_heads"] = released.setting("text_encoder", "heads", heads)
        network = partial(
            comfy.sd1_clip.SDClipModel,
            layer="last",
            textmodel_json_config=config,
            special_tokens={"start": 49406, "end": 49407, "pad": 0},
        )
        target = SimpleNamespace(
            clip=partial(comfy.sd1_clip.SD1ClipModel, clip_name="h", clip_model=network),
            tokenizer=comfy.text_encoders.sd2_clip.SD2Tokenizer,
            params={},
        )
        clip = comfy.sd.CLIP(target, parameters=sum(t.numel() for t in tensors.values()))
        _fill(clip.cond_stage_model.clip_h.transformer, tensors, "the text encoder")
    return clip


def _text_config(tensors: dict[str, Tensor], width: int, layers: int) -> dict[str, Any]:
    positions = "text_model.embeddings.position_embedding.weight"
    inner = "text_model.encoder.layers.0.mlp.fc1.weight"
    return {
        "eos_token_id": 49407,
        "hidden_act": "gelu",
        "hidden_size": width,
        "intermediate_size": shape_of(tensors, inner, 2)[0],
        "max_position_embeddings": shape_of(tensors, positions, 2)[0],
        "num_hidden_layers": layers,
    }


def build_vae(released: Released) -> Any:
    """Build the host's VAE of a released file.

    Raises:
        CheckpointError: tensors are missing, or shapes contradict each other.
    """
    tensors = released.parts["vae"]
    with _naming(released, "the VAE"):
        width = shape_of(tensors, "encoder.conv_in.weight", 4)[0]
        levels = _count(tensors, "encoder.down_blocks.")
        widths = [
            shape_of(tensors, f"encoder.down_blocks.{level}.resnets.0.conv1.weight", 4)[0]
            for level in range(levels)
        ]
        latent = shape_of(tensors, "post_quant_conv.weight", 4)[0]
        layout = {
            "double_z": True,
            "z_channels": latent,
            "resolution": 256,
            "in_channels": 3,
            "out_ch": 3,
            "ch": width,
            "ch_mult": [channels // width for channels in widths],
            "num_res_blocks": _count(tensors, "encoder.down_blocks.0.resnets."),
            "attn_resolutions": [],
            "dropout": 0.0,
        }
        renamed = comfy.diffusers_convert.convert_vae_state_dict(dict(tensors))
        config = {"params": {"ddconfig": layout, "embed_dim": latent}}
        vae = comfy.sd.VAE(sd=renamed, config=config)
        _check_names(vae.first_stage_model, renamed, "the VAE")
    return vae


@contextmanager
def _naming(released: Released, what: str) -> Iterator[None]:
    """Name the file in what goes wrong while a part is built."""
    try:
        yield
    except (CheckpointError, RuntimeError) as error:
        # The host's own networks name the shapes that contradict each other.
        raise CheckpointError(f"{released.path.name}: {what} cannot be built: {error}") from error


def _fill(network: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    """Copy tensors into one of the host's networks, which converts them to its dtype."""
    _check_names(network, tensors, what)
    network.load_state_dict({n: tensors[n] for n in network.state_dict()}, strict=True)


def _check_names(network: nn.Module, tensors: dict[str, Tensor], what: str) -> None:
    missing = [name for name in network.state_dict() if name not in tensors]
    if missing:
        raise CheckpointError(f"{len(missing)} tensors of {what} are missing: {missing[0]}, ...")


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """Count the modules in a list."""
    return len({n.removeprefix(prefix).split(".")[0] for n in tensors if n.startswith(prefix)})
