"""ComfyUI's page in headless Chromium: load a workflow, look at the live graph, take a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

# Nothing here may reach out of the machine, or wait for what it does not have.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # A camera that shows a test picture, and leave to use it.
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
# The page's own: optional files (user.css, ...) that are not there, and the sizes of models that
# the page's default workflow names, which it looks up elsewhere.
UNRELATED = ("Failed to load resource", "Content Security Policy")
LOAD_MILLISECONDS = 90_000
PICTURE_COLOURS = 256
# Kept free around the graph in a picture: the page's own bars lie there.
MARGIN = {"left": 80, "top": 120, "right": 40, "bottom": 80}
# The user's settings of a server for these tests: no greeting, nothing over the graph.
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Graph.CanvasMenu": False,
}

READY = """() => {
  const types = window.LiteGraph?.registered_node_types ?? {};
  return Boolean(types.Live2DiffStreamSampler && window.app?.graph);
}"""
LOAD = """async workflow => {
  await app.loadGraphData(workflow);
  const buttons = app.graph._nodes
    .filter(n => n.type === "WebcamCapture")
    .map(n => n.widgets.find(w => w.type === "button"));
  for (let wait = 0; buttons.some(b => b.disabled) && wait < 300; wait++) {
    await new Promise(done => setTimeout(done, 100));
  }
  const prompt = await app.graphToPrompt();
  const types = LiteGraph.registered_node_types;
  return {
    prompt: JSON.parse(JSON.stringify(prompt.output)),
    saved: JSON.parse(JSON.stringify(app.graph.serialize())),
    missing: workflow.nodes.map(n => n.type).filter(t => !(t in types)),
  };
}"""
BOXES = """() => {
  const title = LiteGraph.NODE_TITLE_HEIGHT;
  // Texts and videos fill whatever width they get.
  const fills = n => (n.widgets ?? []).some(w => w.element);
  const neededSize = n => [fills(n) ? 0 : n.computeSize()[0], n.computeSize()[1]];
  return {
    nodes: app.graph._nodes.map(n => ({
      name: `${n.title} (node ${n.id})`,
      box: [n.pos[0], n.pos[1] - title, n.size[0], n.size[1] + title],
      needed: neededSize(n),
      size: Array.from(n.size),
    })),
    groups: app.graph._groups.map(g => ({
      name: `group ${g.title}`,
      box: [g.pos[0], g.pos[1], g.size[0], g.size[1]],
    })),
  };
}"""
PLACE = """([scale, x, y]) => {
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [x, y];
  app.canvas.setDirty(true, true);
}"""
VIDEOS_READY = "() => Array.from(document.querySelectorAll('video')).every(v => v.readyState >= 2)"


@dataclass(frozen=True)
class Box:
    """A rectangle of the graph, in graph units; `name` is for messages."""

    name: str
    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Box:
        """From the page's {name, box: [x, y, width, height]}."""
        x, y, width, height = entry["box"]
        return cls(entry["name"], x, y, x + width, y + height)

    def overlaps(self, other: Box) -> bool:
        """Whether they share any area; touching does not count."""
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Box) -> bool:
        """Whether `other` lies fully inside."""
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


@dataclass(frozen=True)
class LiveGraph:
    """What the page made of a workflow: its API form, its UI form as saved again, its layout."""

    prompt: dict[str, Any]
    saved: dict[str, Any]
    missing: list[str]
    errors: list[str]
    nodes: list[Box]
    groups: list[Box]
    cramped: list[str]


class ComfyPage:
    """One open page of a server; `page` is Playwright's."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self._errors: list[str] = []
        page.on("pageerror", lambda error: self._errors.append(str(error)))
        page.on("console", self._on_console)
        # The page would look up the models of its default workflow on the web.
        page.route(lambda address: not address.startswith(url), lambda route: route.abort())
        page.goto(url)
        page.wait_for_function(READY, timeout=LOAD_MILLISECONDS)

    def load(self, workflow: dict[str, Any]) -> LiveGraph:
        """Open a UI-format workflow; its API form, and what went wrong meanwhile."""
        self._errors.clear()
        loaded = self.page.evaluate(LOAD, workflow)
        self.page.wait_for_function(VIDEOS_READY, timeout=LOAD_MILLISECONDS)
        # Two frames: the video preview and the notes have their size then.
        self.page.wait_for_timeout(500)
        boxes = self.page.evaluate(BOXES)
        return LiveGraph(
            prompt=loaded["prompt"],
            saved=loaded["saved"],
            missing=loaded["missing"],
            errors=list(self._errors),
            nodes=[Box.of(entry) for entry in boxes["nodes"]],
            groups=[Box.of(entry) for entry in boxes["groups"]],
            cramped=[entry["name"] for entry in boxes["nodes"] if _cramped(entry)],
        )

    def picture(self, graph: LiveGraph, path: Path, width: int = 2000) -> Path:
        """Save the graph that is open, without the page's bars, as a small PNG."""
        everything = [*graph.nodes, *graph.groups]
        left = min(box.left for box in everything) - 20
        top = min(box.top for box in everything) - 20
        across = int(max(box.right for box in everything) + 20 - left)
        down = int(max(box.bottom for box in everything) + 20 - top)
        size = {
            "width": across + MARGIN["left"] + MARGIN["right"],
            "height": down + MARGIN["top"] + MARGIN["bottom"],
        }
        clip = {"x": MARGIN["left"], "y": MARGIN["top"], "width": across, "height": down}
        self.page.set_viewport_size(size)
        self.page.wait_for_timeout(500)
        self.page.evaluate(PLACE, [1, MARGIN["left"] - left, MARGIN["top"] - top])
        self.page.wait_for_timeout(1000)
        image = Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")
        image = image.resize((width, round(down * width / across)), Image.Resampling.LANCZOS)
        # Maximum coverage keeps the thin, bright links apart; a median cut greys them.
        method = Image.Quantize.MAXCOVERAGE
        image = image.quantize(PICTURE_COLOURS, method, kmeans=3, dither=Image.Dither.NONE)
        image.save(path, optimize=True)
        return path

    def _on_console(self, message: Any) -> None:
        if message.type == "error" and not any(words in message.text for words in UNRELATED):
            self._errors.append(message.text)


def _cramped(entry: dict[str, Any]) -> bool:
    """Whether a node is smaller than its content needs, by more than rounding."""
    return any(has < need - 1 for has, need in zip(entry["size"], entry["needed"], strict=True))
