"""Folders of partial results that may not be listed or entered: never taken for empty."""

from contextlib import contextmanager

import folder_paths
import pytest
from host_stream import core, node
from permissions import permissions_hold
from stopped_video import FRAMES, Stopped, snapshot
from stream_video import translate_video, translated

# May be written but not listed; listed but not entered; nothing.
MODES = [0o300, 0o400, 0]


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


@pytest.fixture
def stopped(folders, sd15, motion):
    return Stopped(folders, sd15, motion, "lossless")


@contextmanager
def mode_of(path, mode):
    """Give `path` a mode that holds for root, too."""
    path.chmod(mode)
    try:
        with permissions_hold():
            yield
    finally:
        path.chmod(0o700)


def listed(remove=""):
    return node("partial_results", "Live2DiffPartialResults").execute(remove).args[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("which", ["folder", "root"])
def test_a_run_is_refused_with_a_remedy_and_nothing_is_touched(stopped, caplog, which, mode):
    path = stopped.folder if which == "folder" else stopped.folder.parent
    before = snapshot(stopped.folder)
    with mode_of(path, mode), pytest.raises(ValueError, match="Permission denied") as refused:
        translate_video(stopped.clip, stopped.model, forget=False)
    assert f"{path} cannot be used" in str(refused.value)
    assert "Let ComfyUI read and write it, or move it away" in str(refused.value)
    assert snapshot(stopped.folder) == before
    assert stopped.goes_on_at(caplog) > 9


@pytest.mark.parametrize("mode", MODES)
def test_a_folder_of_another_video_blocks_no_run(stopped, caplog, mode):
    """Though it may be one that version 0.1.0 wrote for this very video."""
    before = snapshot(stopped.folder)
    with mode_of(stopped.folder, mode):
        other = translate_video(stopped.clip, stopped.model, forget=False, seed=9)
    assert other.get_stream_source() and snapshot(stopped.folder) == before
    assert f"by version 0.1.0, it begins anew: The folder of partial results {stopped.folder}" in (
        caplog.text
    )


@pytest.mark.parametrize("mode", MODES)
def test_it_is_listed_with_the_reason_and_not_removed(stopped, mode):
    name, module = stopped.folder.name, core("run.partial_folders")
    before = snapshot(stopped.folder)
    limits = module.PartialLimits(1e-9, 1e-9)
    with mode_of(stopped.folder, mode):
        (line,) = listed().splitlines()
        assert line.startswith(f"{name}: ") and "Permission denied" in line and "move it" in line
        assert listed("all") == line
        with pytest.raises(ValueError, match=f"{name}' cannot be removed: .*Permission denied"):
            listed(name)
        assert module.apply_limits(stopped.folder.parent, limits, clock=lambda: 1e12) == []
    assert snapshot(stopped.folder) == before


@pytest.mark.parametrize("mode", MODES)
def test_a_list_that_cannot_be_made_is_not_an_empty_one(stopped, mode):
    with mode_of(stopped.folder.parent, mode), pytest.raises(ValueError, match="cannot be used"):
        listed()


def test_it_never_takes_the_place_of_the_folder_that_was_used_last(stopped):
    """That one stays, however large it is."""
    module, root = core("run.partial_folders"), stopped.folder.parent
    other = root / "other"
    other.mkdir()
    with mode_of(other, 0o300):
        assert module.apply_limits(root, module.PartialLimits(0, 1e-9)) == []
    assert stopped.states


def test_a_finished_video_does_not_fail_by_limits_that_cannot_be_kept(stopped, caplog):
    """The folder of all of them becomes unreadable while the last frame is translated."""
    root, calls = stopped.folder.parent, stopped.calls
    calls.count = 0
    translated(stopped.clip, stopped.model, seed=9)
    last, calls.count = calls.count, 0
    calls.then = lambda number: number == last and root.chmod(0o300)
    try:
        with permissions_hold():
            video = translate_video(stopped.clip, stopped.model, seed=9)
    finally:
        root.chmod(0o700)
    assert "the limits of partial results are not kept" in caplog.text
    assert len(video.get_components().images) == FRAMES
