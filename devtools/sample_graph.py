"""Puts the sample model into a workflow in place of its loaders."""

from __future__ import annotations

import copy

from devtools.paths import REPO
from folder_queue.client import Graph

SAMPLE = "sample"
MOTION_MODULE = "sample_motion_module.safetensors"
WEIGHTS = REPO / "live2diff_core" / "sample_model" / "weights"
PARTS = ("unet", "text_encoder", "vae", "depth", "sample_motion_module")
# Outputs of 'Load Sample Model'.
MODEL, CLIP, VAE, DEPTH_MODEL = range(4)
# Outputs of loaders -> outputs of 'Load Sample Model'.
_LOADERS = {
    "CheckpointLoaderSimple": (MODEL, CLIP, VAE),
    "VAELoader": (VAE,),
    "Live2DiffLoadDepthModel": (DEPTH_MODEL,),
}
# Nodes that are left out: each output is one of the inputs.
_BYPASSED = {
    "LoraLoaderModelOnly": ("model",),
    "LoraLoader": ("model", "clip"),
    "ControlNetApplyAdvanced": ("positive", "negative"),
}
_UNUSED = ("ControlNetLoader",)


def sample_model_is_there() -> bool:
    """Return whether all files of the sample model lie in the pack."""
    return all((WEIGHTS / f"{name}.safetensors").is_file() for name in PARTS)


def with_sample_model(graph: Graph) -> Graph:
    """Return a copy of an API-format graph that runs on the sample model.

    LoRAs and ControlNets are bypassed: they are for SD1.5 at its full width.
    """
    changed = copy.deepcopy(graph)
    gone = (*_LOADERS, *_BYPASSED, *_UNUSED)
    kept = {key: node for key, node in changed.items() if node["class_type"] not in gone}
    for node in kept.values():
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                node["inputs"][name] = _source(changed, value)
        if node["class_type"] == "Live2DiffLoadMotionModule":
            node["inputs"]["motion_module"] = MOTION_MODULE
    kept[SAMPLE] = {"class_type": "Live2DiffLoadSampleModel", "inputs": {}}
    return kept


def _source(graph: Graph, link: list) -> list:
    """Follow a link [node, output] to what takes its place."""
    key, output = link
    kind, inputs = graph[key]["class_type"], graph[key]["inputs"]
    if kind in _LOADERS:
        return [SAMPLE, _LOADERS[kind][output]]
    if kind in _BYPASSED:
        return _source(graph, inputs[_BYPASSED[kind][output]])
    return link
