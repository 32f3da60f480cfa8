"""The model whose motion module is trained: loaded once, never changed."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.sd
import torch

from live2diff_core.depth.model import DepthModel

from .config import TrainingConfig
from .option_checks import ConfigError

SAMPLE = "sample"


@dataclass(frozen=True)
class BaseModel:
    """What a video is encoded and denoised with.

    Attributes:
        model: ComfyUI's ModelPatcher of SD1.5, plain.
        clip: ComfyUI's CLIP.
        vae: ComfyUI's VAE.
        depth_model: a `DepthModel`; None where depth comes from videos, or is not used.
    """

    model: Any
    clip: Any
    vae: Any
    depth_model: Any = None


def load_base(config: TrainingConfig) -> BaseModel:
    """Load the checkpoint that a configuration names.

    Raises:
        ConfigError: there is no such file.
        ValueError: from `DepthModel.from_file`; or the checkpoint is incomplete.
    """
    if config.checkpoint == SAMPLE:
        return _sample()
    _require_file("checkpoint", config.checkpoint)
    model, clip, vae, *_ = comfy.sd.load_checkpoint_guess_config(
        config.checkpoint, model_options={"dtype": getattr(torch, config.dtype)}
    )
    missing = [name for name, part in (("CLIP", clip), ("VAE", vae)) if part is None]
    if missing:
        raise ConfigError(f"checkpoint: {config.checkpoint} has no {' and no '.join(missing)}.")
    depth = None
    if config.depth_model is not None:
        _require_file("depth_model", config.depth_model)
        depth = DepthModel.from_file(config.depth_model)
    return BaseModel(model, clip, vae, depth)


def _sample() -> BaseModel:
    if importlib.util.find_spec("live2diff_core.sample_model") is None:
        raise ConfigError("checkpoint: this version of the pack has no sample model; name a file.")
    module = importlib.import_module("live2diff_core.sample_model.loading")
    sample = module.load_sample_model()
    return BaseModel(sample.model, sample.clip, sample.vae, sample.depth_model)


def _require_file(option: str, path: str) -> None:
    if not Path(path).is_file():
        raise ConfigError(f"{option}: there is no file {path}.")
