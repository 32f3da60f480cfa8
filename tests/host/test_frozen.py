"""What earlier versions left on users' disks loads and goes on: tests/data/frozen."""

import asyncio
import json
import shutil

import pytest
import torch
from frozen import (
    CLIP,
    FROZEN,
    LIVE,
    SAVED_AFTER,
    VIDEO,
    expected,
    frozen_model,
    go_on_live,
    video_settings,
)
from live_stream_inputs import load, step
from stream_video import Calls, translated

VERSIONS = sorted(path.name for path in FROZEN.iterdir() if path.is_dir())
pytestmark = pytest.mark.parametrize("version", VERSIONS)


def test_a_saved_live_stream_goes_on(version, sd15, motion, vae, folders, streams):
    (folders / "output" / "live2diff").mkdir()
    shutil.copy(FROZEN / version / LIVE, folders / "output" / "live2diff" / LIVE)
    Calls(sd15)
    found = go_on_live(frozen_model(sd15, motion), vae)
    wanted = expected(version, "live").float()
    assert found.shape == wanted.shape
    # Half a grey level for the rounding of what was kept, and the other processor's own.
    assert (found * 255 - wanted).abs().max() <= 1.0


def test_a_partial_video_goes_on(version, sd15, motion, vae, folders, caplog):
    calls = Calls(sd15)
    model = frozen_model(sd15, motion)
    shutil.copytree(FROZEN / version / VIDEO, folders / "output" / "live2diff_partial")
    with caplog.at_level("INFO"):
        found = translated(FROZEN / version / CLIP, model, vae, **video_settings())
    assert "going on at frame 6" in caplog.text
    wanted = expected(version, "video")
    assert found.shape == wanted.shape
    assert (found.int() - wanted.int()).abs().max() <= 1
    assert calls.count < len(wanted) * 2


def test_a_live_stream_of_other_settings_is_refused(version, sd15, motion, vae, folders, streams):
    """Going on must not mean that nothing is compared."""
    (folders / "output" / "live2diff").mkdir()
    shutil.copy(FROZEN / version / LIVE, folders / "output" / "live2diff" / LIVE)
    load()
    Calls(sd15)
    with pytest.raises(ValueError, match=f"made with other settings: .*seed 3 -> {SAVED_AFTER}"):
        step(torch.rand(1, 64, 80, 3), frozen_model(sd15, motion), vae, seed=SAVED_AFTER)


def test_graphs_in_api_format_name_nodes_and_inputs_that_there_are(version, pack):
    extension = asyncio.run(pack.comfy_entrypoint())
    asyncio.run(extension.on_load())
    classes = {c.define_schema().node_id: c for c in asyncio.run(extension.get_node_list())}
    paths = sorted((FROZEN / version / "workflows" / "api").glob("*.json"))
    assert len(paths) == 10
    for path in paths:
        graph = json.loads(path.read_text(encoding="utf-8"))
        for node in (n for n in graph.values() if n["class_type"].startswith("Live2Diff")):
            inputs = {i.id: i for i in classes[node["class_type"]].define_schema().inputs}
            assert set(node["inputs"]) <= set(inputs), (path.name, node["class_type"])
            needed = {name for name, i in inputs.items() if not i.optional}
            assert needed <= set(node["inputs"]), (path.name, node["class_type"])
