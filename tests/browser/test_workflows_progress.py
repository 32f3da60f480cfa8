"""What a person sees while Stream Video runs: how far it is, how long it takes, and a picture."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.browser
FRAMES = 60

QUEUE = """async (file) => {
    const named = (node, name) => node.widgets.find((widget) => widget.name === name);
    for (const node of app.graph.nodes) {
        if (node.type === 'LoadVideo') named(node, 'file').value = file;
        if (node.type !== 'Live2DiffStreamVideo') continue;
        named(node, 'width').value = 64;
        named(node, 'height').value = 64;
    }
    await app.queuePrompt(0, 1);
}"""
SHOWN = """() => {
    const node = app.graph.nodes.find((each) => each.type === 'Live2DiffStreamVideo');
    const texts = (node.widgets ?? []).map((widget) => String(widget.value ?? ''));
    return {
        text: texts.find((text) => text.includes(' of ')) ?? '',
        pictures: (node.imgs ?? []).map((image) => [image.naturalWidth, image.naturalHeight]),
        progress: node.progress ?? 0,
    };
}"""


@pytest.mark.thorough
def test_progress_time_left_and_preview(comfy_page, page_server, tmp_path):
    from devtools.media import sample_frames, write_video

    clip = page_server.base / "input" / "progress.mp4"
    assert write_video(clip, sample_frames(FRAMES, 128)) == FRAMES
    workflow = json.loads((ROOT / "workflows" / "long_video.json").read_text(encoding="utf-8"))
    graph = comfy_page.load(workflow)
    page = comfy_page.page
    page.evaluate(QUEUE, clip.name)
    page.wait_for_function(
        f"() => {{ const s = ({SHOWN})(); return s.text && s.pictures.length }}", timeout=300_000
    )
    shown = page.evaluate(SHOWN)
    folder = Path(os.environ.get("LIVE2DIFF_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    comfy_page.picture(graph, folder / "progress-graph.png")
    page.screenshot(path=folder / "progress.png")
    page_server.client.interrupt()
    assert f" of {FRAMES}" in shown["text"] and "left" in shown["text"], shown
    assert shown["pictures"] == [[64, 64]]
