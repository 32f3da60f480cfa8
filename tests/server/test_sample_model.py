"""Every bundled workflow on the sample model, queued on a real server."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from devtools import media
from devtools.sample_graph import with_sample_model

ROOT = Path(__file__).resolve().parents[2]
# StreamingT2V is another model; Live Stream waits for pictures from a page (test_live_stream.py).
WORKFLOWS = sorted(
    path
    for path in (ROOT / "workflows" / "api").glob("*.json")
    if not re.search("LoadStreamingT2V|Live2DiffLiveStream", path.read_text(encoding="utf-8"))
)
CLIP, PICTURE, FRAMES, SIDE = "sample-clip.mp4", "sample.png", 10, 64
# Between them: both memories, depth, a Prompt Schedule, a file, a live stream.
USUAL = ("video_to_video_depth", "prompt_travel", "long_video", "streamv2v", "live_webcam")

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def inputs(comfy_server):
    """A clip and a picture in the server's input folder."""
    folder = comfy_server.base / "input"
    media.write_video(folder / CLIP, media.sample_frames(FRAMES, SIDE))
    next(iter(media.sample_frames(1, SIDE))).save(folder / PICTURE)


def small(path):
    """The workflow on the sample model, for the clip or the picture at a small size."""
    graph = with_sample_model(json.loads(path.read_text(encoding="utf-8")))
    for node in graph.values():
        given = node["inputs"]
        if node["class_type"] == "LoadVideo":
            given["file"] = CLIP
        if node["class_type"] == "WebcamCapture":
            node["class_type"], node["inputs"] = "LoadImage", {"image": PICTURE}
        if node["class_type"] == "PreviewImage":
            node["class_type"] = "SaveImage"
            given["filename_prefix"] = "sample"
        if node["class_type"] in ("ImageScale", "Live2DiffStreamVideo"):
            given["width"] = given["height"] = SIDE
    return graph


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem in USUAL else pytest.mark.thorough, id=path.stem)
        for path in WORKFLOWS
    ],
)
def test_a_workflow_runs_on_the_sample_model(comfy_server, inputs, path):
    graph = small(path)
    files = comfy_server.client.run(graph).files()
    videos = [file for file in files if file.suffix == ".mp4"]
    if path.stem == "live_webcam":
        assert [Image.open(file).size for file in files if file.suffix == ".png"] == [(SIDE, SIDE)]
    else:
        assert media.count_frames(videos[-1]) == FRAMES
        assert media.frame_size(videos[-1]) == (SIDE, SIDE)
