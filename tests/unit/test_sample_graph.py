"""The sample model in place of a workflow's loaders."""

import json
from pathlib import Path

import pytest

from devtools.sample_graph import MOTION_MODULE, SAMPLE, with_sample_model

# StreamingT2V is another model.
WORKFLOWS = sorted(
    path
    for path in (Path(__file__).parents[2] / "workflows" / "api").glob("*.json")
    if "LoadStreamingT2V" not in path.read_text(encoding="utf-8")
)
LOADERS = ("CheckpointLoader", "VAELoader", "LoraLoader", "ControlNet", "LoadDepthModel")


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_no_loader_is_left_and_no_link_ends_nowhere(path):
    graph = with_sample_model(load(path))
    kinds = [node["class_type"] for node in graph.values()]
    assert not [kind for kind in kinds if any(name in kind for name in LOADERS)]
    for node in graph.values():
        for value in node["inputs"].values():
            if isinstance(value, list):
                assert value[0] in graph
        if node["class_type"] == "Live2DiffLoadMotionModule":
            assert node["inputs"]["motion_module"] == MOTION_MODULE


def test_links_lead_through_bypassed_nodes_to_the_sample_model():
    graph = load(next(path for path in WORKFLOWS if path.stem == "video_to_video_controlnet"))
    before = json.dumps(graph)
    changed = with_sample_model(graph)
    assert json.dumps(graph) == before
    by_kind = {node["class_type"]: node["inputs"] for node in changed.values()}
    assert by_kind["Live2DiffApply"]["model"] == [SAMPLE, 0]
    assert by_kind["VAEDecode"]["vae"] == [SAMPLE, 2]
    positive, output = by_kind["Live2DiffStreamSampler"]["positive"]
    assert (changed[positive]["class_type"], output) == ("CLIPTextEncode", 0)
    assert changed[positive]["inputs"]["clip"] == [SAMPLE, 1]
