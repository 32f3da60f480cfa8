"""Tests in this folder open a real ComfyUI server's page in headless Chromium."""

import json

import pytest
from comfy_page import SETTINGS, ComfyPage
from live_browser import launch
from numbered_frames import write_camera

from devtools.browser import find_browser

# The file that the workflows name.
SAMPLE = "live2diff_sample.mp4"


@pytest.fixture(scope="session")
def page_server(comfy_server):
    """The server, with the sample clip and without anything over the graph."""
    from devtools.media import write_sample_clip

    base = comfy_server.base
    write_sample_clip(base / "input" / SAMPLE)
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(SETTINGS), encoding="utf-8")
    return comfy_server


@pytest.fixture(scope="session")
def short_clip(page_server):
    """A clip in the server's input folder that a CPU translates in seconds: (name, frames)."""
    from devtools.media import sample_frames, write_video

    path = page_server.base / "input" / "short.mp4"
    return path.name, write_video(path, sample_frames(10, 128))


@pytest.fixture(scope="module")
def playwright():
    """Playwright; per file, because an event loop runs in this thread as long as it does."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if find_browser() is None:
        pytest.skip("no Chromium found (python3 dev.py test brings one)")
    with sync_api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright):
    """Headless Chromium, with a camera that shows a test picture."""
    yield (chromium := launch(playwright))
    chromium.close()


@pytest.fixture(scope="module")
def camera_browser(playwright, tmp_path_factory):
    """Chromium with a camera whose frames carry their number."""
    film = write_camera(tmp_path_factory.mktemp("camera") / "camera.y4m", range(250))
    yield (chromium := launch(playwright, f"--use-file-for-fake-video-capture={film}"))
    chromium.close()


@pytest.fixture(scope="module")
def comfy_page(browser, page_server):
    """The server's page, ready, with the pack's nodes registered."""
    return ComfyPage(browser.new_page(), page_server.url)


@pytest.fixture(scope="session")
def object_info(page_server):
    """The server's description of every node class."""
    return page_server.client.get("/object_info")
