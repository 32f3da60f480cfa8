"""The models of the demo: the real files if all of them exist, else the pack's sample model.

Where the user names a file of their own and others are missing, those are stand-ins. Runs inside
the venv (the stand-ins need torch).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devtools import standins
from devtools.console import ToolError, say
from devtools.paths import remove_tree
from devtools.sample_graph import MOTION_MODULE, sample_model_is_there
from devtools.workspace import link_file


@dataclass(frozen=True)
class Wanted:
    """A model that the workflow needs: its folder, file name patterns, stand-in and source."""

    kind: str
    patterns: tuple[str, ...]
    standin: str
    source: str


# The sources are Hugging Face repositories.
WANTED = {
    "checkpoint": Wanted(
        "checkpoints",
        ("*v1-5*.safetensors", "*.safetensors"),
        standins.CHECKPOINT,
        "v1-5-pruned-emaonly-fp16.safetensors from Comfy-Org/stable-diffusion-v1-5-archive "
        "(or any SD1.5 checkpoint)",
    ),
    "motion_module": Wanted(
        "live2diff",
        ("live2diff*.ckpt", "live2diff*.safetensors"),
        standins.MOTION_MODULE,
        "live2diff.ckpt from Leoxing/Live2Diff",
    ),
    "lora": Wanted(
        "loras",
        ("*lcm*lora*v1-5*.safetensors", "*lcm*sd*1*5*.safetensors"),
        standins.LCM_LORA,
        "pytorch_lora_weights.safetensors from latent-consistency/lcm-lora-sdv1-5, "
        "renamed to lcm-lora-sdv1-5.safetensors",
    ),
    "taesd_encoder": Wanted(
        "vae_approx",
        ("taesd_encoder.*",),
        standins.TAESD_ENCODER,
        "taesd_encoder.safetensors from madebyollin/taesd",
    ),
    "taesd_decoder": Wanted(
        "vae_approx",
        ("taesd_decoder.*",),
        standins.TAESD_DECODER,
        "taesd_decoder.safetensors from madebyollin/taesd",
    ),
    "depth_model": Wanted(
        "midas",
        ("dpt_hybrid*.pt",),
        standins.MIDAS,
        "dpt_hybrid-midas-501f0c75.pt from lllyasviel/Annotators",
    ),
}


@dataclass
class Models:
    """The chosen models.

    Attributes:
        names: as the nodes list them, by key of WANTED.
        folders: where they are.
        missing: sources of the real ones that were not found.
        sample: whether the pack's sample model is to be used instead of all of them.
    """

    names: dict[str, str] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    sample: bool = False


def choose_models(
    real_folders: Sequence[Path], chosen: dict[str, str | None], scratch: Path
) -> Models:
    """Choose the models of a run: all real, or the sample model when a real one is missing.

    `chosen` maps keys of WANTED to a path or a name of the user's choice, which always wins; such
    files are linked into `scratch`, a folder of ours that is emptied first. Beside such a file the
    sample model cannot be used, so stand-ins are generated for those that are missing. Real files
    and stand-ins have different widths, so the other models are either all real or all stand-ins.
    """
    remove_tree(scratch)
    scratch.mkdir(parents=True)
    found = {
        key: find_model(wanted, real_folders)
        for key, wanted in WANTED.items()
        if not chosen.get(key)
    }
    models = Models(missing=[WANTED[key].source for key, name in found.items() if name is None])
    real = list(real_folders)
    if models.missing and not any(chosen.values()) and sample_model_is_there():
        models.folders, models.sample = [scratch, *real], True
        models.names = {"motion_module": MOTION_MODULE}
    elif models.missing:
        models.folders = [scratch, standins.ensure_standins(), *real]
        models.names = {key: Path(wanted.standin).name for key, wanted in WANTED.items()}
    else:
        models.folders = [scratch, *real]
        models.names = {key: name for key, name in found.items() if name is not None}
    for key, value in chosen.items():
        if value:
            path = locate(value, WANTED[key].kind, [*real, standins.standins_dir()])
            link_file(path, scratch / WANTED[key].kind / path.name)
            models.names[key] = path.name
    return models


def find_model(wanted: Wanted, folders: Sequence[Path]) -> str | None:
    """Return the name, as ComfyUI lists it, of a matching real file; None if there is none."""
    for folder in folders:
        base = folder / wanted.kind
        for pattern in wanted.patterns:
            for path in sorted(base.rglob(pattern)):
                if wanted.kind != "checkpoints" or is_sd15(path):
                    return str(path.relative_to(base))
    return None


def locate(value: str, kind: str, folders: Sequence[Path]) -> Path:
    """Resolve a user's option to a file: it is a path, or a name in a models folder."""
    candidates = [Path(value).expanduser(), *(folder / kind / value for folder in folders)]
    for path in candidates:
        if path.is_file():
            return path.resolve()
    places = ", ".join(str(folder / kind) for folder in folders)
    raise ToolError(f"there is no file {value}, neither here nor in {places}")


def is_sd15(path: Path) -> bool:
    """Return whether a safetensors file is an SD1.5 checkpoint, from a shape in its header."""
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    try:
        with open(path, "rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            header = json.loads(handle.read(min(length, 1 << 26)))
        return list(header[key]["shape"]) == [320, 768]
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return False


def announce(models: Models, put_into: Path) -> None:
    """If not all models are real, say what is used, and which files to download."""
    if models.sample:
        say(
            "Using the small sample model that comes with this pack. For SD1.5 itself, put into "
            f"{put_into} (from Hugging Face): {'; '.join(models.missing)}."
        )
    elif models.missing:
        say(
            "Using stand-in models with random weights: the pictures are texture, not art. For "
            f"real ones, put into {put_into} (from Hugging Face): {'; '.join(models.missing)}."
        )
