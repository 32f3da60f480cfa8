"""Tests in this folder open a real ComfyUI server's page in headless Chromium."""

import json
import os

import pytest
from comfy_page import FLAGS, SETTINGS, ComfyPage, find_chromium

# The file that the workflows name.
SAMPLE = "live2diff_sample.mp4"


@pytest.fixture(scope="session")
def page_server(tmp_path_factory):
    """A ComfyUI on the CPU with this pack, stand-in models and the sample clip."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set (python3 dev.py test sets it)")
    from devtools.hosts import current_host
    from devtools.media import write_sample_clip
    from devtools.server import ComfyServer
    from devtools.standins import ensure_standins
    from devtools.workspace import prepare_workspace

    base = prepare_workspace(tmp_path_factory.mktemp("page_server"), [ensure_standins()])
    write_sample_clip(base / "input" / SAMPLE)
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(json.dumps(SETTINGS), encoding="utf-8")
    with ComfyServer(current_host(), base, cpu=True) as server:
        yield server


@pytest.fixture(scope="session")
def short_clip(page_server):
    """A clip in the server's input folder that a CPU translates in seconds: (name, frames)."""
    from devtools.media import sample_frames, write_video

    path = page_server.base / "input" / "short.mp4"
    return path.name, write_video(path, sample_frames(10, 128))


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium found; install it, or set CHROMIUM to its path")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def comfy_page(browser, page_server):
    """The server's page, ready, with the pack's nodes registered."""
    return ComfyPage(browser.new_page(), page_server.url)


@pytest.fixture(scope="session")
def object_info(page_server):
    """The server's description of every node class."""
    return page_server.client.get("/object_info")
