"""Which videos a folder holds, and in which order."""

from pathlib import Path

import pytest

from live2diff_core.video.folder import folder_inside, list_videos, require_inside


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder, *arguments):
    return [path.as_posix() for path in list_videos(folder, *arguments)]


def test_natural_order_is_stable(tmp_path):
    wanted = ["1.mp4", "2b.mp4", "10.mp4", "clip2.mp4", "clip10.mp4", "Clip 01.mp4", "clip 1.mp4"]
    touch(tmp_path, *wanted)
    assert names(tmp_path) == wanted


def test_only_what_matches_and_is_not_hidden(tmp_path):
    touch(tmp_path, "a.MP4", "b.mov", "c.txt", "._a.mp4", ".cache/d.mp4", "mp4")
    assert names(tmp_path, "*.mp4; *.mov", True) == ["a.MP4", "b.mov"]
    assert names(tmp_path, "?.txt") == ["c.txt"]
    assert names(tmp_path, "") == names(tmp_path, " ; ") == []


def test_subfolders_only_when_asked(tmp_path):
    touch(tmp_path, "b.mp4", "day 2/a.mp4", "day 10/a.mp4")
    assert names(tmp_path) == ["b.mp4"]
    assert names(tmp_path, "*.mp4", True) == ["b.mp4", "day 2/a.mp4", "day 10/a.mp4"]


def test_links_to_folders_are_not_followed(tmp_path):
    touch(tmp_path, "sub/a.mp4")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert names(tmp_path, "*.mp4", True) == ["sub/a.mp4"]


@pytest.mark.parametrize("folder", ["..", "sub/../..", "/", "out"])
def test_ways_out_are_refused(tmp_path, folder):
    base = tmp_path / "input"
    (base / "sub").mkdir(parents=True)
    (base / "out").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="only files inside"):
        folder_inside(base, folder)


def test_a_neighbour_with_the_same_beginning_is_outside(tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "input-other").mkdir()
    with pytest.raises(ValueError):
        folder_inside(tmp_path / "input", "../input-other")


def test_folders_inside(tmp_path):
    (tmp_path / "real" / "sub").mkdir(parents=True)
    linked = tmp_path / "input"
    # The input folder itself may well be a link to another disk.
    linked.symlink_to(tmp_path / "real", target_is_directory=True)
    for folder in ("", ".", "sub", "sub/", "sub/..", str(tmp_path / "real" / "sub")):
        assert folder_inside(linked, folder).is_relative_to(tmp_path / "real")
    with pytest.raises(FileNotFoundError, match="there is no folder 'gone'"):
        folder_inside(linked, "gone")
    with pytest.raises(ValueError):
        require_inside(linked, linked / "sub" / ".." / ".." / "x.mp4")
    assert require_inside(linked, linked / "x.mp4") == Path(tmp_path / "real" / "x.mp4")
