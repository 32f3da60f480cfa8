"""The graph that queue_folder sends: read, changed, recognised."""

import json
import shutil
from pathlib import Path

import pytest

from folder_queue.errors import UsageError
from folder_queue.workflow import load_workflow

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
# All but those without a video.
WITHOUT = ("live", "live_webcam", "text_to_long_video")
BUNDLED = sorted(path for path in WORKFLOWS.glob("*.json") if path.stem not in WITHOUT)
PLAIN = WORKFLOWS / "video_to_video.json"


def written(folder, graph):
    path = folder / "graph.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    return path


def plain_graph():
    return json.loads((WORKFLOWS / "api" / PLAIN.name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
def test_bundled_workflows_work_in_both_formats(path):
    workflow = load_workflow(path)
    assert workflow == load_workflow(path.parent / "api" / path.name)
    graph = workflow.for_video("queue_folder/x.mp4", "queue_folder/x")
    assert graph[workflow.video_node]["inputs"]["file"] == "queue_folder/x.mp4"
    assert graph[workflow.save_node]["inputs"]["filename_prefix"] == "queue_folder/x"
    assert workflow.graph[workflow.video_node]["inputs"]["file"] != "queue_folder/x.mp4"


def test_a_page_format_without_its_twin_says_how_to_export(tmp_path):
    shutil.copy(PLAIN, tmp_path)
    with pytest.raises(UsageError, match=r"Workflow > Export \(API\)"):
        load_workflow(tmp_path / PLAIN.name)


@pytest.mark.parametrize("text", ["{}", "[]", '{"1": {}}', '{"1": {"class_type": "A"}}', "3"])
def test_other_json_is_no_workflow(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UsageError, match="is no ComfyUI workflow"):
        load_workflow(tmp_path / "x.json")


def test_no_json_and_no_file(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UsageError, match="is no JSON file"):
        load_workflow(tmp_path / "x.json")
    with pytest.raises(UsageError, match="cannot read the workflow"):
        load_workflow(tmp_path / "gone.json")


def test_two_videos_must_be_told_apart(tmp_path):
    graph = plain_graph()
    graph["70"] = {"class_type": "LoadVideo", "inputs": {"file": "b.mp4"}}
    path = written(tmp_path, graph)
    with pytest.raises(UsageError, match=r"2 LoadVideo nodes: 7 \(LoadVideo, 'Load Video'\); 70 "):
        load_workflow(path)
    workflow = load_workflow(path, video_node="70")
    assert workflow.for_video("new", "p")["70"]["inputs"]["file"] == "new"
    assert workflow.for_video("new", "p")["7"] == graph["7"]
    with pytest.raises(UsageError, match="13 .* names no video file"):
        load_workflow(path, video_node="13")
    with pytest.raises(UsageError, match="has no node 99"):
        load_workflow(path, video_node="99")


def test_no_place_for_the_video_or_the_result(tmp_path):
    graph = plain_graph()
    save = graph.pop("16")
    with pytest.raises(UsageError, match="no SaveVideo node. It has: 1 "):
        load_workflow(written(tmp_path, graph))
    with pytest.raises(UsageError, match="14 .* has no filename_prefix"):
        load_workflow(written(tmp_path, graph), save_node="14")
    graph["16"] = save
    del graph["7"]
    with pytest.raises(UsageError, match="the video: the workflow has no LoadVideo node"):
        load_workflow(written(tmp_path, graph))


def test_settings_by_id_and_class():
    settings = [
        "9.width=64",
        "ImageScale.height=32",
        "13.denoise=1",
        "11.text=7 = x.y",
        "13.cfg=1.5",
    ]
    graph = load_workflow(PLAIN, settings).graph
    assert (graph["9"]["inputs"]["width"], graph["9"]["inputs"]["height"]) == (64, 32)
    assert graph["13"]["inputs"]["denoise"] == 1 and graph["13"]["inputs"]["cfg"] == 1.5
    assert graph["11"]["inputs"]["text"] == "7 = x.y"


@pytest.mark.parametrize(
    "setting, words",
    [
        ("ImageScale", "takes NODE.INPUT=VALUE"),
        ("ImageScale=3", "takes NODE.INPUT=VALUE"),
        ("ImageScale.wide=3", "has no input wide; it has upscale_method, width"),
        ("ImageScale.width=many", "the value now is 512; give one of that kind"),
        ("ImageScale.width=true", "give one of that kind"),
        ("ImageScale.image=3", "image of 9 .* comes from node 8"),
        ("CLIPTextEncode.text=x", "2 CLIPTextEncode nodes: 11 .*Positive prompt.*; 12 "),
        ("KSampler.seed=1", "no KSampler node"),
    ],
)
def test_settings_that_change_nothing_are_refused(setting, words):
    with pytest.raises(UsageError, match=words):
        load_workflow(PLAIN, [setting])


def test_the_fingerprint_sees_what_matters(tmp_path):
    same = plain_graph()
    same["7"]["inputs"]["file"] = "other.mp4"
    same["16"]["inputs"]["filename_prefix"] = "other"
    same["13"]["_meta"]["title"] = "other"
    same["5"]["inputs"] = dict(reversed(same["5"]["inputs"].items()))
    first = load_workflow(PLAIN).fingerprint()
    assert load_workflow(written(tmp_path, same)).fingerprint() == first
    assert load_workflow(PLAIN, ["13.seed=1"]).fingerprint() != first


def test_titles():
    workflow = load_workflow(PLAIN)
    assert workflow.title("13") == workflow.title("13.0.2") == "Stream Sampler"
    assert workflow.title("99") == "99"
