"""The bundled workflows in ComfyUI's own page, and queued on its server."""

import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
FROZEN = sorted((ROOT / "tests" / "data" / "frozen").glob("*/workflows/*.json"))
MAIN = "video_to_video_depth"
LIVE = "live_webcam"
# Runs until it is stopped; see test_live_page.py.
ENDLESS = "live"
# They give other frames than go in; see test_long_video_workflows.py.
LONG = ("extend_and_enhance", "text_to_long_video")
# Between them: both memories, depth, LoRA, a Prompt Schedule, a video read and written.
USUALLY_RUN = (MAIN, "streamv2v", "prompt_travel")
SIDE = 128
# The nodes that set the size of the frames.
SIZED = ("ImageScale", "Live2DiffStreamVideo")

pytestmark = pytest.mark.browser
Graph = dict[str, dict[str, Any]]


def read_json(*parts: str) -> dict[str, Any]:
    return json.loads((ROOT / "workflows").joinpath(*parts).read_text(encoding="utf-8"))


def known_inputs(graph: Graph, object_info: dict[str, Any]) -> Graph:
    """Class and inputs of each node, without inputs that this server's version does not have."""
    known = {}
    for key, node in graph.items():
        groups = object_info[node["class_type"]]["input"]
        names = {name for kind in ("required", "optional") for name in groups.get(kind, {})}
        if node["class_type"] == "WebcamCapture":
            names.discard("image")  # a new picture every time
        inputs = {name: value for name, value in node["inputs"].items() if name in names}
        known[key] = {"class_type": node["class_type"], "inputs": inputs}
    return known


def choices(spec: list[Any]) -> list[Any] | None:
    """What a combo input offers, in any of ComfyUI's ways to say it; None for other inputs."""
    if isinstance(spec[0], list):
        return spec[0]
    options = spec[1].get("options") if len(spec) > 1 else None
    if options is None:
        return None
    return [option["key"] if isinstance(option, dict) else option for option in options]


def links_of_pack_nodes(workflow: dict[str, Any]) -> dict[int, list[str]]:
    """The inputs that can be linked of this pack's nodes, widgets aside, by the node's id."""
    return {
        node["id"]: [slot["name"] for slot in node["inputs"] if "widget" not in slot]
        for node in workflow["nodes"]
        if node["type"].startswith("Live2Diff")
    }


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def live(name, comfy_page):
    """The workflow as the page has it."""
    return comfy_page.load(read_json(f"{name}.json"))


def test_each_workflow_has_its_twin():
    assert MAIN in NAMES
    assert NAMES == sorted(path.stem for path in (ROOT / "workflows" / "api").glob("*.json"))


def test_opens_without_missing_nodes_or_errors(live):
    assert live.missing == []
    assert live.errors == []


def test_converts_to_its_twin(name, live, object_info):
    twin = read_json("api", f"{name}.json")
    assert known_inputs(live.prompt, object_info) == known_inputs(twin, object_info)


def test_lists_the_inputs_that_the_page_would_save(name, live):
    """A node that gains an input is to be saved anew in every workflow."""
    assert links_of_pack_nodes(read_json(f"{name}.json")) == links_of_pack_nodes(live.saved)


@pytest.mark.parametrize("path", FROZEN, ids=lambda p: f"{p.parts[-3]} {p.stem}")
def test_workflows_of_earlier_versions_open_and_convert(path, comfy_page, object_info):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    twin = json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))
    same = path.stem in NAMES and workflow == read_json(f"{path.stem}.json")
    if not (same and twin == read_json("api", path.name)):  # else the tests above are about it
        opened = comfy_page.load(workflow)
        assert opened.missing == [] and opened.errors == []
        found, wanted = (known_inputs(g, object_info) for g in (opened.prompt, twin))
        drop_new_inputs(found, wanted, object_info)
        assert found == wanted


def drop_new_inputs(found: Graph, wanted: Graph, object_info: dict[str, Any]) -> None:
    """Drop the inputs that later versions added, which must be optional and at their defaults."""
    for key, node in found.items():
        optional = object_info[node["class_type"]]["input"].get("optional", {})
        for name in set(node["inputs"]) - set(wanted[key]["inputs"]):
            assert name in optional and node["inputs"].pop(name) == optional[name][1]["default"]


def test_nothing_overlaps_and_everything_fits(live):
    pairs = [*itertools.combinations(live.nodes, 2), *itertools.combinations(live.groups, 2)]
    assert [(a.name, b.name) for a, b in pairs if a.overlaps(b)] == []
    halfway = [
        (group.name, node.name)
        for group, node in itertools.product(live.groups, live.nodes)
        if group.overlaps(node) and not group.holds(node)
    ]
    assert halfway == []
    assert live.cramped == []


def test_reads_from_left_to_right(live):
    left = {group.name.removeprefix("group "): group.left for group in live.groups}
    order = ["Models", "Prompt", "Stream", "Output"]
    assert [left[title] for title in order] == sorted(left[title] for title in order)


def test_file_names_and_choices_exist(name, object_info):
    missing = []
    for node in known_inputs(read_json("api", f"{name}.json"), object_info).values():
        groups = object_info[node["class_type"]]["input"]
        specs = {**groups.get("required", {}), **groups.get("optional", {})}
        for key, value in node["inputs"].items():
            offered = None if isinstance(value, list) else choices(specs[key])
            if offered is not None and value not in offered:
                missing.append((node["class_type"], key, value))
    assert missing == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in USUALLY_RUN else pytest.mark.thorough)
        for name in NAMES
        if name not in (LIVE, ENDLESS, *LONG)
    ],
)
def test_runs_and_keeps_every_frame(name, page_server, short_clip):
    from devtools.media import FRAMES, count_frames, frame_size

    clip, frames = short_clip
    graph = read_json("api", f"{name}.json")
    for node in graph.values():
        if node["class_type"] in SIZED:
            node["inputs"].update(width=SIDE, height=SIDE)
        elif node["class_type"] == "LoadVideo":
            node["inputs"]["file"] = clip
        elif node["class_type"] == "Live2DiffPromptSchedule":
            # At the same places of the shorter clip.
            for key in ("start_frame", "blend_frames"):
                node["inputs"][key] = node["inputs"][key] * frames // FRAMES
    (video,) = page_server.client.run(graph).files()
    assert count_frames(video) == frames
    assert frame_size(video) == (SIDE, SIDE)


@pytest.mark.thorough
def test_camera_runs_live(comfy_page, page_server):
    """Each conversion in the page takes a picture of the browser's camera, as each run does."""
    told = []
    for _ in range(10):
        graph = comfy_page.load(read_json(f"{LIVE}.json")).prompt
        by_class = {node["class_type"]: key for key, node in graph.items()}
        graph[by_class["ImageScale"]]["inputs"].update(width=SIDE, height=SIDE)
        # ComfyUI 0.30's Webcam Capture refuses its own files (ComfyUI issue 15756); in other
        # versions it does what Load Image does.
        camera = graph[by_class["WebcamCapture"]]
        camera.update(class_type="LoadImage", inputs={"image": camera["inputs"]["image"]})
        graph["index"] = {
            "class_type": "PreviewAny",
            "inputs": {"source": [by_class["Live2DiffStreamStep"], 1]},
        }
        outputs = page_server.client.run(graph).outputs
        shown = len(outputs[by_class["PreviewImage"]]["images"])
        told.append((int(outputs["index"]["text"][0]), shown))
    assert told == [(-1, 1)] * 7 + [(0, 8), (-1, 1), (8, 1)]


@pytest.mark.thorough
@pytest.mark.parametrize("shown", [MAIN, ENDLESS, *LONG])
def test_picture_of_a_workflow(comfy_page, tmp_path, shown):
    folder = Path(os.environ.get("LIVE2DIFF_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    graph = comfy_page.load(read_json(f"{shown}.json"))
    name = {MAIN: "workflow", ENDLESS: "live_workflow"}.get(shown, shown)
    picture = comfy_page.picture(graph, folder / f"{name}.png")
    assert 20_000 < picture.stat().st_size < 300_000
