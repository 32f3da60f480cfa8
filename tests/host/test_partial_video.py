"""Nothing of a long run is lost: damaged, missing and unreadable files, and two runs at once."""

import multiprocessing
import os

import folder_paths
import pytest
import torch
from host_stream import core, patched
from permissions import permissions_hold
from stopped_video import FRAMES, Stopped, aside, partial, snapshot
from stream_video import (
    Calls,
    StoppedError,
    block_clip,
    translated,
)


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


@pytest.fixture(params=["lossless", "h264"])
def stopped(folders, sd15, motion, request):
    return Stopped(folders, sd15, motion, request.param)


def test_a_stopped_run_goes_on_where_it_was_stopped(stopped, caplog):
    """Not only where a segment ended; two states of segments' ends are kept, too."""
    *_, last = stopped.states
    assert len(stopped.states) == 3 and last.with_suffix(".mkv").is_file()
    number = int(last.stem.removeprefix("state_"))
    assert number % 3 and stopped.goes_on_at(caplog) == number


def test_it_can_be_stopped_at_every_frame(folders, sd15, motion):
    """Each time it goes on where it was, within one segment, too."""
    calls, model = Calls(sd15), patched(sd15, motion, 4, 2)
    clip, entered = block_clip(folders, range(FRAMES)), []
    whole = translated(clip, model, codec="h264", checkpoint_every=5)
    for _ in range(40):
        try:
            with calls.stopping_at(3):
                found = translated(clip, model, codec="h264", checkpoint_every=5)
            break
        except StoppedError:
            entered += [path.stem for path in partial(folders).glob("state_*.safetensors")]
    assert torch.equal(found, whole) and len(set(entered)) >= 5


def test_a_truncated_state_costs_only_what_came_after_the_one_before(stopped, caplog):
    *_, first, last = stopped.states
    last.write_bytes(last.read_bytes()[:-100])
    assert stopped.goes_on_at(caplog) == int(first.stem.removeprefix("state_"))
    assert "damaged" in caplog.text and f"{last.name}.aside" in caplog.text


def test_a_missing_state_costs_only_what_came_after_the_one_before(stopped, caplog):
    *_, first, last = stopped.states
    last.unlink()
    assert stopped.goes_on_at(caplog) == int(first.stem.removeprefix("state_"))


@pytest.mark.parametrize("harm", ["truncated", "gone"])
def test_damaged_pictures_cost_only_what_came_after_the_state_before(stopped, caplog, harm):
    *_, first, last = stopped.states
    pictures = last.with_suffix(".mkv")
    if harm == "gone":
        pictures.unlink()
    else:
        pictures.write_bytes(pictures.read_bytes()[:600])
    assert stopped.goes_on_at(caplog) == int(first.stem.removeprefix("state_"))
    assert "pictures" in caplog.text


def test_a_truncated_last_segment_costs_only_what_came_after_the_state_before(stopped, caplog):
    segments = sorted(stopped.folder.glob("segment_*.mp4"))
    segments[-1].write_bytes(segments[-1].read_bytes()[:-50])
    stopped_at = stopped.states
    frames = stopped.goes_on_at(caplog)
    assert frames == int(stopped_at[0].stem.removeprefix("state_")) > 0
    assert "cannot be used" in caplog.text


def test_without_any_state_it_begins_anew_with_a_warning_and_keeps_the_parts(
    stopped, caplog, monkeypatch
):
    for state in stopped.states:
        state.unlink()
    kept = []
    folder = core("run.partial_folder").PartialFolder
    finish = folder.finish

    def note(self):
        kept.extend(aside(self.path))
        finish(self)

    monkeypatch.setattr(folder, "finish", note)
    segments = sorted(path.name for path in stopped.folder.glob("segment_*.mp4"))
    assert stopped.goes_on_at(caplog) == 0
    assert "begins anew" in caplog.text and "was not saved, or is missing" in caplog.text
    assert kept == [f"{name}.aside" for name in segments]


@pytest.mark.parametrize("which", ["state", "segment"])
def test_what_cannot_be_read_stops_the_run_with_nothing_touched(stopped, caplog, which):
    """A loop of links cannot be opened, whoever asks; permissions do not hold for root."""
    path = {
        "state": stopped.states[-1],
        "segment": sorted(stopped.folder.glob("segment_*.mp4"))[0],
    }[which]
    away = path.rename(path.with_name("elsewhere"))
    path.symlink_to(path)
    before = snapshot(stopped.folder)
    with pytest.raises((OSError, ValueError), match="(?i)symbolic links"):
        stopped.go_on()
    assert snapshot(stopped.folder) == before
    path.unlink()
    away.rename(path)
    assert stopped.goes_on_at(caplog) > 9


@pytest.mark.parametrize("which", ["state", "segment", "folder", "about"])
def test_what_may_not_be_read_is_not_called_damaged(stopped, caplog, which):
    path = {
        "state": stopped.states[-1],
        "segment": sorted(stopped.folder.glob("segment_*.mp4"))[0],
        "folder": stopped.folder,
        "about": stopped.folder / "about.json",
    }[which]
    before, mode = snapshot(stopped.folder), path.stat().st_mode
    path.chmod(0)
    try:
        with permissions_hold(), pytest.raises((OSError, ValueError)) as refused:
            stopped.go_on()
    finally:
        path.chmod(mode)
    assert "Permission denied" in str(refused.value) and str(path) in str(refused.value)
    assert "damaged" not in str(refused.value) and snapshot(stopped.folder) == before
    assert stopped.goes_on_at(caplog) > 9


@pytest.mark.parametrize("which", ["folder", "root"])
def test_what_may_not_be_written_stops_the_run_with_a_remedy(stopped, caplog, which):
    path = stopped.folder if which == "folder" else stopped.folder.parent
    before = snapshot(stopped.folder)
    (path / f".{stopped.folder.name}.lock").unlink(missing_ok=True)
    path.chmod(0o500)
    try:
        with permissions_hold(), pytest.raises((OSError, ValueError)) as refused:
            stopped.go_on()
    finally:
        path.chmod(0o700)
    assert "Permission denied" in str(refused.value) and str(path) in str(refused.value)
    assert snapshot(stopped.folder) == before
    assert stopped.goes_on_at(caplog) > 9


def test_a_folder_named_like_a_segment_is_put_aside(stopped, caplog):
    number = 3 * (len(list(stopped.folder.glob("segment_*.mp4"))) + 5)
    (stopped.folder / f"segment_{number:09d}.mp4").mkdir()
    assert stopped.goes_on_at(caplog) > 9
    assert "cannot be used" in caplog.text


def test_a_file_in_place_of_the_folder_is_named_with_the_remedy(stopped, caplog):
    moved = stopped.folder.rename(stopped.folder.with_name("elsewhere"))
    stopped.folder.write_text("mine")
    with pytest.raises(ValueError, match="is a file; .*Move the file away"):
        stopped.go_on()
    assert stopped.folder.read_text() == "mine"
    stopped.folder.unlink()
    moved.rename(stopped.folder)
    assert stopped.goes_on_at(caplog) > 9


def test_a_folder_of_a_later_version_is_refused_by_name(stopped):
    about = stopped.folder / "about.json"
    about.write_text(about.read_text().replace("partial video 1", "partial video 7"))
    before = snapshot(stopped.folder)
    with pytest.raises(ValueError, match="another version.*video 7"):
        stopped.go_on()
    assert snapshot(stopped.folder) == before


def test_folders_in_place_of_files_are_put_aside(stopped, caplog):
    for name in ("segment_000000200.mp4.part", "pictures.mkv", "state_000000500.safetensors"):
        (stopped.folder / name).mkdir()
    assert stopped.goes_on_at(caplog) > 9


def test_what_a_killed_save_left_is_deleted(stopped, caplog):
    left = stopped.folder / "state_000000003.safetensors.4242.part"
    left.write_bytes(b"half")
    with stopped.calls.stopping_at(2), pytest.raises(StoppedError):
        stopped.go_on()
    assert not left.exists()


# Two runs at once


def test_a_second_run_of_the_same_inputs_is_refused(stopped, caplog):
    with core("run.folder_lock").holding(stopped.folder):
        before = snapshot(stopped.folder)
        with pytest.raises(ValueError, match="Another run is translating the same video"):
            stopped.go_on()
        assert snapshot(stopped.folder) == before
    assert stopped.goes_on_at(caplog) > 9


def _hold_and_die(path, held):
    with core("run.folder_lock").holding(path):
        held.set()
        os.kill(os.getpid(), 9)


@pytest.mark.skipif(os.name == "nt", reason="no fork there")
def test_a_dead_process_holds_nothing(stopped, caplog):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold_and_die, args=(stopped.folder, held))
    process.start()
    process.join(60)
    assert held.is_set() and process.exitcode == -9
    assert stopped.goes_on_at(caplog) > 9
