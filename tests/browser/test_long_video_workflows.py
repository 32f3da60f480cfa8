"""The workflows of long videos, run with stand-ins; what the page makes of them is tested there."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.browser


def graph_of(name, **changes):
    """The graph that the page sends, with other inputs by class."""
    path = ROOT / "workflows" / "api" / f"{name}.json"
    graph = json.loads(path.read_text(encoding="utf-8"))
    for node in graph.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    return graph


def test_text_becomes_a_long_video(page_server):
    from devtools.media import count_frames, frame_size

    small = {"frames": 19, "steps": 1, "width": 64, "height": 64}
    graph = graph_of("text_to_long_video", Live2DiffLongVideo=small)
    (video,) = page_server.client.run(graph).files()
    assert count_frames(video) == 19
    assert frame_size(video) == (64, 64)


def test_a_video_is_extended_and_enhanced(page_server, short_clip):
    from devtools.media import count_frames, frame_size

    clip, _ = short_clip
    graph = graph_of(
        "extend_and_enhance",
        LoadVideo={"file": clip},
        Live2DiffExtendVideo={"seconds": 0.5, "steps": 1, "width": 64, "height": 64},
        Live2DiffEnhanceVideo={"width": 64, "height": 80, "steps": 1, "chunk": 8, "overlap": 2},
    )
    (load,) = (key for key, node in graph.items() if node["class_type"] == "LoadVideo")
    extend = next(n for n in graph.values() if n["class_type"] == "Live2DiffExtendVideo")
    # The sample is shorter than two seconds: its first picture is repeated.
    del extend["inputs"]["video"]
    graph["parts"] = {"class_type": "GetVideoComponents", "inputs": {"video": [load, 0]}}
    graph["first"] = {
        "class_type": "ImageFromBatch",
        "inputs": {"image": ["parts", 0], "batch_index": 0, "length": 1},
    }
    graph["short"] = {"class_type": "CreateVideo", "inputs": {"images": ["first", 0], "fps": 8}}
    extend["inputs"]["video"] = ["short", 0]
    (video,) = page_server.client.run(graph).files()
    assert count_frames(video) == 16 + 4
    assert frame_size(video) == (64, 64)
