"""Hosts and workspaces: versions, overlays, what is unpacked and linked where."""

import io
import json
import tarfile

import pytest

from devtools import hosts, workspace
from devtools.console import ToolError

NEW = "front-end==1.47\ncomfy_kitchen==0.2.26\ntorch\nav>=16.0.0\n"
OLD = "front-end==1.45  # page\ncomfy-kitchen == 0.2.26\nextra==3\nglfw\nav>=14\n"


def test_overlay_holds_only_exact_pins_that_differ():
    assert hosts.overlay_pins(OLD, NEW) == ["front-end==1.45", "extra==3", "glfw"]
    assert hosts.overlay_pins(NEW, NEW) == []


@pytest.mark.parametrize(
    ("text", "version"),
    [('# made by a script\n__version__ = "0.24.0"\n', "0.24.0"), ("nothing", "unknown")],
)
def test_version_is_read_from_the_source(tmp_path, text, version):
    (tmp_path / "comfyui_version.py").write_text(text)
    assert hosts.read_version(tmp_path) == version


def test_version_of_an_old_tree_is_unknown(tmp_path):
    assert hosts.read_version(tmp_path) == "unknown"


def test_unknown_version_lists_the_known_ones(monkeypatch):
    with pytest.raises(ToolError, match=r"0\.99.*0\.30\.0, 0\.24\.0"):
        hosts.ensure_host("0.99")


def test_comfyui_path_must_be_a_comfyui(tmp_path, monkeypatch):
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(ToolError, match="is not a ComfyUI folder"):
        hosts.ensure_host()


def archive(path, names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))


def test_only_the_vendored_tree_is_unpacked(tmp_path):
    top = "pkg-1.0/vendor/ComfyUI"
    names = [f"{top}/main.py", f"{top}/comfy/sd.py", "pkg-1.0/setup.py", f"{top}/../../../evil.py"]
    archive(tmp_path / "a.tar.gz", names)
    hosts.unpack_vendored(tmp_path / "a.tar.gz", tmp_path / "host")
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py")}
    assert files == {"host/main.py", "host/comfy/sd.py"}


def test_an_archive_without_comfyui_is_refused(tmp_path):
    archive(tmp_path / "a.tar.gz", ["pkg-1.0/setup.py"])
    with pytest.raises(ToolError, match="holds no ComfyUI"):
        hosts.unpack_vendored(tmp_path / "a.tar.gz", tmp_path / "host")


def test_extra_paths_keep_order_and_odd_characters(tmp_path):
    folders = [tmp_path / 'a "b": c', tmp_path / "d#e"]
    lines = workspace.extra_paths_yaml(folders).splitlines()
    bases = [line.split(": ", 1)[1] for line in lines if "base_path" in line]
    assert [json.loads(base) for base in bases] == [str(folder) for folder in folders]
    assert workspace.extra_paths_yaml([]) == "{}\n"


def test_workspace_links_the_checkout_and_can_be_made_twice(tmp_path):
    for _ in range(2):
        base = workspace.prepare_workspace(tmp_path / "base")
    link = base / "custom_nodes" / "comfyui-live2diff"
    assert link.resolve() == workspace.REPO.resolve()


def test_a_link_to_another_checkout_is_moved(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        workspace.link_folder(tmp_path / name, tmp_path / "link")
        assert (tmp_path / "link").resolve() == (tmp_path / name).resolve()


def test_a_real_folder_is_never_replaced(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "link").mkdir()
    with pytest.raises(ToolError, match="is no link"):
        workspace.link_folder(tmp_path / "one", tmp_path / "link")
