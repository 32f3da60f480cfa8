"""The live workflow as a person sees it: the browser's camera in, pictures and a frame counter."""

import json
import os
from pathlib import Path

import pytest
from comfy_page import ComfyPage

ROOT = Path(__file__).resolve().parents[2]
STREAM, SIDE, WARMUP = "shown live", 128, 8

pytestmark = pytest.mark.browser

# ComfyUI 0.30's Webcam Capture refuses its own files (ComfyUI issue 15756); in other versions it
# does what Load Image does. The page still takes the picture, at every run.
PREPARE = """([name, side]) => {
  const named = (node, key) => node.widgets.find(widget => widget.name === key);
  for (const node of app.graph._nodes) {
    if (node.type === "ImageScale") {
      named(node, "width").value = side;
      named(node, "height").value = side;
    }
    if (node.type === "Live2DiffStreamStep") named(node, "stream").value = name;
  }
  const convert = app.graphToPrompt.bind(app);
  app.graphToPrompt = async (...given) => {
    const prompt = await convert(...given);
    for (const node of Object.values(prompt.output)) {
      if (node.class_type !== "WebcamCapture") continue;
      node.class_type = "LoadImage";
      node.inputs = { image: node.inputs.image };
    }
    return prompt;
  };
}"""
COUNTER = """() => {
  const node = app.graph._nodes.find(each => each.type === "Live2DiffStreamStep");
  const texts = (node.widgets ?? []).map(widget => String(widget.value ?? ""));
  return texts.find(text => text.includes("frames")) ?? "";
}"""
# The pictures of the preview: their sizes, and how many colours are in them.
PICTURES = """() => {
  const node = app.graph._nodes.find(each => each.type === "PreviewImage");
  return (node.imgs ?? []).map(image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    return [canvas.width, canvas.height, new Set(new Uint32Array(data.buffer)).size];
  });
}"""


@pytest.fixture
def live_page(browser, page_server):
    """A page of its own, since the test changes what the page queues."""
    page = browser.new_page()
    yield ComfyPage(page, page_server.url)
    page.close()


def wait_for_counter(page, words):
    page.wait_for_function(f"words => ({COUNTER})().includes(words)", arg=words, timeout=60_000)


def test_pictures_and_the_frame_counter_are_shown(live_page, tmp_path):
    page = live_page.page
    workflow = json.loads((ROOT / "workflows" / "live_webcam.json").read_text(encoding="utf-8"))
    graph = live_page.load(workflow)
    page.evaluate(PREPARE, [STREAM, SIDE])
    page.evaluate("() => app.queuePrompt(0, 1)")
    wait_for_counter(page, f"{STREAM}: warming up, 1 frames so far")
    page.evaluate("runs => app.queuePrompt(0, runs)", WARMUP + 1)
    # At two denoising steps the output is one frame behind.
    wait_for_counter(page, f"{STREAM}: {WARMUP + 1} frames finished")
    # A node has its pictures once it is drawn.
    folder = Path(os.environ.get("LIVE2DIFF_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    live_page.picture(graph, folder / "live.png")
    ((width, height, colours),) = page.evaluate(PICTURES)
    assert (width, height) == (SIDE, SIDE) and colours > 100
