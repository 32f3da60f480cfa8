"""A folder of videos in ComfyUI's page: as a batch, and with auto-queue until the last video."""

import pytest
from comfy_page import ComfyPage

pytestmark = pytest.mark.browser

FOLDER_NODE = "Live2DiffVideoFromFolder"
# Frames of the videos, by which they are told apart.
LENGTHS = [3, 5, 7]

BUILD = """folder => {
  app.graph.clear();
  const load = LiteGraph.createNode("Live2DiffVideoFromFolder");
  const save = LiteGraph.createNode("SaveVideo");
  [load.pos, save.pos] = [[60, 120], [420, 120]];
  app.graph.add(load);
  app.graph.add(save);
  const socket = name => save.inputs.findIndex(input => input.name === name);
  load.connect(0, save, socket("video"));
  load.connect(1, save, socket("filename_prefix"));
  load.widgets.find(widget => widget.name === "folder").value = folder;
}"""
SHOWN = """() => {
  const node = app.graph._nodes.find(each => each.type === "Live2DiffVideoFromFolder");
  const values = Object.fromEntries(node.widgets.map(widget => [widget.name, widget.value]));
  const texts = node.widgets.map(widget => String(widget.value ?? ""));
  return { index: values.index, text: texts.find(text => / of |done/.test(text)) ?? "" };
}"""
REFUSED = f"() => ({SHOWN})().text.includes('are done')"


@pytest.fixture
def page(browser, page_server):
    """A new page: auto-queue, left on, would run other tests' graphs again and again."""
    opened = browser.new_page()
    ComfyPage(opened, page_server.url)
    yield opened
    opened.close()


@pytest.fixture
def folder(page_server, request):
    """A folder of three videos in the server's input, with a name of its own."""
    from devtools.media import sample_frames, write_video

    name = f"videos {request.node.name}"
    (page_server.base / "input" / name).mkdir()
    for number, frames in enumerate(LENGTHS):
        path = page_server.base / "input" / name / f"clip{number}.mp4"
        assert write_video(path, sample_frames(frames, 64)) == frames
    return name


def runs_of(server, folder):
    """What the server ran on `folder`: (index, "success" or "error", the saved file) per run."""
    found = []
    for record in server.client.get("/history").values():
        graph = record["prompt"][2]
        inputs = {node["class_type"]: node["inputs"] for node in graph.values()}
        if inputs.get(FOLDER_NODE, {}).get("folder") != folder:
            continue
        saved = [file for output in record["outputs"].values() for file in output["images"]]
        path = server.base / "output" / saved[0]["filename"] if saved else None
        status = record["status"]["status_str"]
        found.append((inputs[FOLDER_NODE]["index"], status, path))
    return found


def wait_for_runs(page, server, folder, count):
    for _ in range(200):
        if len(runs_of(server, folder)) >= count:
            break
        page.wait_for_timeout(100)


def test_a_batch_counts_up(page, page_server, folder):
    from devtools.media import count_frames

    page.evaluate(BUILD, folder)
    page.evaluate("() => app.queuePrompt(0, 3)")
    wait_for_runs(page, page_server, folder, 3)
    runs = runs_of(page_server, folder)
    assert [run[:2] for run in runs] == [(index, "success") for index in range(3)]
    assert [path.name[:6] for _, _, path in runs] == ["clip0_", "clip1_", "clip2_"]
    assert [count_frames(path) for _, _, path in runs] == LENGTHS
    assert page.evaluate(SHOWN) == {"index": 3, "text": "3 of 3: clip2.mp4"}


@pytest.mark.parametrize("mode", ["Instant", pytest.param("On Change", marks=pytest.mark.thorough)])
def test_auto_queue_stops_behind_the_last_video(page, page_server, folder, mode):
    page.evaluate(BUILD, folder)
    page.get_by_test_id("queue-mode-menu-trigger").click()
    page.get_by_text(f"Run ({mode})").first.click()
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(REFUSED, timeout=60_000)
    # Time for more runs, were it to go on.
    page.wait_for_timeout(2000)
    assert [run[:2] for run in runs_of(page_server, folder)] == [
        (index, "success") for index in range(3)
    ]
    assert page_server.client.get("/queue") == {"queue_running": [], "queue_pending": []}
    shown = page.evaluate(SHOWN)
    assert shown["text"].startswith("All 3 videos are done. Set index to 0 to begin again.")
    assert shown["index"] == 3
