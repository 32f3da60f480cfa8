"""What the server offers of the pack beside its nodes: templates and help pages."""

import json
import time
import urllib.request
from pathlib import Path

import pytest

from devtools.paths import APP_NAME

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE_FOLDERS = {"example_workflows", "example", "examples", "workflow", "workflows"}

pytestmark = pytest.mark.browser


def fetch(server, path):
    with urllib.request.urlopen(f"{server.url}{path}", timeout=30) as reply:
        return reply.read()


def test_only_one_template_folder():
    # With two of them ComfyUI lists both and serves the files of one.
    assert [path.name for path in ROOT.iterdir() if path.name in TEMPLATE_FOLDERS] == ["workflows"]


def test_template_browser_lists_the_workflows(page_server):
    expected = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    listed = page_server.client.get("/workflow_templates")
    assert sorted(listed[APP_NAME]) == expected


@pytest.mark.parametrize("path", sorted((ROOT / "workflows").glob("*.json")), ids=lambda p: p.stem)
def test_templates_are_served(page_server, path):
    served = fetch(page_server, f"/api/workflow_templates/{APP_NAME}/{path.name}")
    assert json.loads(served) == json.loads(path.read_text(encoding="utf-8"))


def test_the_live_workflow_has_a_picture(page_server):
    # ComfyUI's template browser asks for NAME.jpg beside NAME.json.
    served = fetch(page_server, f"/api/workflow_templates/{APP_NAME}/live.jpg")
    assert served == (ROOT / "workflows" / "live.jpg").read_bytes()


def test_every_node_has_a_help_page(page_server, object_info):
    nodes = [name for name in object_info if name.startswith("Live2Diff")]
    assert len(nodes) >= 6
    for name in nodes:
        page = fetch(page_server, f"/extensions/{APP_NAME}/docs/{name}.md").decode()
        assert page.startswith("# "), name
        assert object_info[name]["display_name"] in page.splitlines()[0], name


def test_limits_are_in_the_settings_and_reach_the_server(comfy_page, page_server):
    page, names = comfy_page.page, ("Live2Diff.PartialDays", "Live2Diff.PartialGigabytes")
    read = "name => window.app.extensionManager.setting.get(name)"
    assert [page.evaluate(read, name) for name in names] == [30, 200]
    write = "([name, value]) => window.app.extensionManager.setting.set(name, value)"
    path = page_server.base / "user" / "default" / "comfy.settings.json"
    try:
        page.evaluate(write, [names[0], 12])
        deadline = time.monotonic() + 20
        while not path.is_file() or names[0] not in json.loads(path.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert json.loads(path.read_text())[names[0]] == 12
    finally:
        page.evaluate(write, [names[0], 30])
