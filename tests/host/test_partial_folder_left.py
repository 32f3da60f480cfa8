"""What a run leaves: nothing, its result, or a folder within limits; and the room on the disk."""

import errno
import os
from pathlib import Path

import folder_paths
import numpy
import pytest
import torch
from host_stream import core, patched
from stopped_video import FRAMES, Stopped, partial
from stream_video import (
    Calls,
    StoppedError,
    block_clip,
    forget_results,
    translate_video,
    translated,
)
from video_graphs import decode


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


@pytest.fixture(params=["lossless", "h264"])
def stopped(folders, sd15, motion, request):
    return Stopped(folders, sd15, motion, request.param)


# What is left


def test_a_refused_run_leaves_no_folder(folders, sd15, monkeypatch):
    spec = core("run.spec").StreamSpec

    def refuse(*_, **__):
        raise ValueError("refused")

    monkeypatch.setattr(spec, "open", refuse)
    with pytest.raises(ValueError, match="refused"):
        translate_video(block_clip(folders, range(4)), sd15)
    assert not list((folders / "out" / "live2diff_partial").iterdir())


def test_a_run_that_fails_before_its_first_frame_leaves_no_folder(folders, sd15):
    calls = Calls(sd15)
    with calls.stopping_at(1), pytest.raises(StoppedError):
        translate_video(block_clip(folders, range(4)), sd15)
    assert not list((folders / "out" / "live2diff_partial").iterdir())


def test_what_is_not_ours_stays(stopped, caplog):
    (stopped.folder / "notes.txt").write_text("mine")
    assert stopped.goes_on_at(caplog) > 9
    forget = core("run.partial_folders")
    (info,) = forget.list_partial(stopped.folder.parent)
    forget.remove_partial([info], "test")
    assert [path.name for path in stopped.folder.iterdir()] == ["notes.txt"]


def test_without_states_the_finished_frames_are_kept_and_it_says_so(folders, sd15, caplog):
    calls, clip = Calls(sd15), block_clip(folders, range(FRAMES))
    whole = translated(clip, sd15, checkpoint_every=0)
    with calls.stopping_at(9), pytest.raises(StoppedError):
        translate_video(clip, sd15, checkpoint_every=0)
    assert "checkpoint_every is 0. Queued again, the video begins anew; the file is kept." in (
        caplog.text
    )
    first = decode(partial(folders) / "partial.mp4")[1]
    assert len(first) == 7 and numpy.array_equal(first, whole[:7].numpy())
    # The next run is stopped earlier: the longer file is still there.
    with calls.stopping_at(5), pytest.raises(StoppedError):
        translate_video(clip, sd15, checkpoint_every=0)
    assert len(decode(partial(folders) / "partial.mp4")[1]) == 3
    assert len(decode(partial(folders) / "partial_7.mp4")[1]) == 7


# The result


def test_the_result_is_kept_and_found_by_the_same_inputs(folders, sd15, caplog):
    calls, clip = Calls(sd15), block_clip(folders, range(6))
    first = translate_video(clip, sd15)
    path = Path(first.get_stream_source())
    assert path.parent == partial(folders) and path.name == "result.mp4"
    assert sorted(p.name for p in path.parent.iterdir()) == ["about.json", "result.mp4"]
    calls.count = 0
    with caplog.at_level("INFO"):
        again = translate_video(clip, sd15, forget=False)
    assert again.get_stream_source() == first.get_stream_source() and calls.count == 0
    assert str(path) in caplog.text


def test_an_assembly_that_fails_costs_no_frame(folders, sd15, monkeypatch, caplog):
    calls, clip = Calls(sd15), block_clip(folders, range(FRAMES))
    whole, file = translated(clip, sd15), core("run.file")
    assemble = file.assemble

    def full(segments, path, **options):
        if options["complete"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return assemble(segments, path, **options)

    forget_results()
    with monkeypatch.context() as patch:
        patch.setattr(file, "assemble", full)
        with pytest.raises(OSError, match="No space"):
            translate_video(clip, sd15)
    calls.count = 0
    with caplog.at_level("INFO"):
        assert torch.equal(translated(clip, sd15), whole)
    assert f"going on at frame {FRAMES}" in caplog.text and calls.count == 0


# Limits and the disk


def test_old_and_large_folders_are_removed(stopped):
    folders, root = core("run.partial_folders"), stopped.folder.parent
    (info,) = folders.list_partial(root)
    assert info.video == "clip.mov" and info.frames == 11 and info.nbytes > 1000
    day = 86400
    now = stopped.states[-1].stat().st_mtime

    def limited(days, gigabytes, after):
        limits = folders.PartialLimits(days, gigabytes)
        return folders.apply_limits(root, limits, clock=lambda: now + after * day)

    assert not limited(30, 1, 29) and not limited(0, 0, 10_000)
    with core("run.folder_lock").holding(stopped.folder):
        assert not limited(1, 1e-9, 31)
    assert limited(30, 1, 31) and not stopped.folder.exists()


def test_the_oldest_goes_first_when_they_are_too_large(folders, sd15):
    calls, root = Calls(sd15), folders / "out" / "live2diff_partial"
    module = core("run.partial_folders")
    for seed in (1, 2, 3):
        with calls.stopping_at(9), pytest.raises(StoppedError):
            translate_video(block_clip(folders, range(8)), sd15, seed=seed)
        (new,) = [i for i in module.list_partial(root) if i.idle_seconds < 1e6]
        for path in new.folder.path.iterdir():
            os.utime(path, (0, 1e6 * seed))
    sizes = [info.nbytes for info in module.list_partial(root)]
    limits = module.PartialLimits(0, (sum(sizes) - 1) / 1e9)
    (gone,) = module.apply_limits(root, limits)
    left = module.list_partial(root)
    assert len(left) == 2 and gone.idle_seconds > max(info.idle_seconds for info in left)


def test_a_disk_too_small_for_the_states_is_refused_before_the_run(
    folders, sd15, motion, monkeypatch
):
    disk, calls = core("run.disk"), Calls(sd15)
    usage = disk.shutil.disk_usage(".")._replace(free=10_000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage)
    clip, model = block_clip(folders, range(4)), patched(sd15, motion, 4, 2)
    with pytest.raises(OSError, match="0.0 GB free|10.* kB|free; saved states .*checkpoint_every"):
        translate_video(clip, model)
    assert calls.count == 0 and not list((folders / "out" / "live2diff_partial").iterdir())
    assert len(translated(clip, model, checkpoint_every=0)) == 4


def test_a_disk_that_may_be_too_small_is_told_of(folders, sd15, monkeypatch, caplog):
    disk = core("run.disk")
    usage = disk.shutil.disk_usage(".")._replace(free=10_000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage)
    assert len(translated(block_clip(folders, range(4)), sd15)) == 4
    assert "this video may take about" in caplog.text


def test_a_damaged_result_is_put_aside_and_made_anew(folders, sd15, caplog):
    clip = block_clip(folders, range(6))
    video = translate_video(clip, sd15)
    path = Path(video.get_stream_source())
    whole = decode(path)[1]
    path.write_bytes(b"")
    again = translate_video(clip, sd15, forget=False)
    assert numpy.array_equal(decode(again.get_stream_source())[1], whole)
    assert "the result was damaged" in caplog.text


def test_segments_without_anything_else_are_listed(stopped):
    """As version 0.1.0 left them, when it was stopped before its first state."""
    for path in stopped.folder.iterdir():
        if not path.name.startswith("segment_"):
            path.unlink()
    (info,) = core("run.partial_folders").list_partial(stopped.folder.parent)
    assert info.folder.path == stopped.folder and info.frames == 0


def test_the_folder_used_last_is_never_too_large(stopped):
    module = core("run.partial_folders")
    assert module.apply_limits(stopped.folder.parent, module.PartialLimits(0, 1e-9)) == []
