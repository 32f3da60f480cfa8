"""Nothing of a long run is lost: damaged and missing files, full folders, two runs at once."""

import errno
import multiprocessing
import os
import re
import time
from importlib import import_module
from pathlib import Path

import av
import folder_paths
import numpy
import pytest
import torch
from host_stream import PACK, core, patched
from permissions import permissions_hold
from stream_video import (
    Calls,
    StoppedError,
    block_clip,
    forget_results,
    translate_video,
    translated,
)
from video_graphs import decode

FRAMES = 14


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path


def partial(folders):
    (folder,) = (p for p in (folders / "out" / "live2diff_partial").iterdir() if p.is_dir())
    return folder


class Stopped:
    """A run with two saved states that was stopped, and what it would have become."""

    def __init__(self, folders, sd15, motion, codec):
        calls = Calls(sd15)
        self.model, self.codec = patched(sd15, motion, 4, 2), codec
        self.clip = block_clip(folders, range(FRAMES))
        self.whole = self.go_on()
        with calls.stopping_at(12), pytest.raises(StoppedError):
            translate_video(self.clip, self.model, codec=codec)
        self.folder, self.calls = partial(folders), calls

    def go_on(self):
        return translated(self.clip, self.model, codec=self.codec)

    def goes_on_at(self, caplog):
        """Go on, compare with the uninterrupted video, and return the frame it went on at."""
        caplog.clear()
        with caplog.at_level("INFO"):
            assert torch.equal(self.go_on(), self.whole)
        found = re.search(r"going on at frame (\d+)", caplog.text)
        return int(found[1]) if found else 0

    @property
    def states(self):
        return sorted(self.folder.glob("state_*.safetensors"))


@pytest.fixture(params=["lossless", "h264"])
def stopped(folders, sd15, motion, request):
    return Stopped(folders, sd15, motion, request.param)


def aside(folder):
    return sorted(path.name for path in folder.glob("*.aside"))


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


def snapshot(folder):
    return {
        path.name: path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in folder.iterdir()
    }


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


# Saving by time


def test_states_are_saved_by_time(folders, sd15, motion, monkeypatch):
    """Three frames a segment and a minute a frame: every 5 minutes is every second segment."""
    saving, saved, now = core("run.saving"), [], [0.0]
    save = core("run.partial_folder").PartialFolder.save
    calls = Calls(sd15)

    def tick(number):
        now[0] += 60

    def note(self, frames, *args):
        saved.append(frames)
        save(self, frames, *args)

    calls.then = tick
    monkeypatch.setattr(core("run.partial_folder").PartialFolder, "save", note)
    init = saving.StateSaver.__init__

    def with_clock(self, write, seconds, notices):
        init(self, write, seconds, notices, clock=lambda: now[0])

    monkeypatch.setattr(saving.StateSaver, "__init__", with_clock)
    translated(block_clip(folders, range(24)), sd15, denoise=0.25, save_minutes=5.0)
    assert saved == [6, 12, 18, 24]


def test_a_run_that_cannot_write_a_byte_leaves_no_folder(folders, sd15, monkeypatch):
    """The disk is full before the run: what it is about is half written."""
    write = Path.write_text

    def half(path, text, **options):
        write(path, text[:10], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(ValueError, match="cannot be used .No space left"):
        translate_video(block_clip(folders, range(4)), sd15)
    assert not list((folders / "out" / "live2diff_partial").iterdir())


# Stopped between the last frame of a segment and its end


def keyframes(video):
    """Frames of a VIDEO's file with which a segment begins."""
    with av.open(str(video.get_stream_source())) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    return [index for index, packet in enumerate(packets) if packet.is_keyframe]


@pytest.fixture
def in_segments(folders, sd15, motion):
    """Run a clip in h264, in segments of 4 frames: its pictures and keyframes."""
    model, clip = patched(sd15, motion, 3, 2), block_clip(folders, range(FRAMES))

    def run(**changes):
        options = {"codec": "h264", "crf": 30, "checkpoint_every": 4, **changes}
        video = translate_video(clip, model, **options)
        return decode(video.get_stream_source())[1], keyframes(video)

    return run


@pytest.mark.parametrize("every, done", [(1, 4), (1, 9), *((4, done) for done in range(1, 11))])
def test_an_interrupt_at_any_report_changes_no_segment(in_segments, monkeypatch, every, done):
    """Interrupts are raised while a frame is reported, which may be the last of a segment."""
    whole = in_segments(checkpoint_every=every)
    progress = import_module(f"{PACK}.nodes.progress").RunProgress
    with monkeypatch.context() as patch:

        def stop(self, number, picture):
            if number == done:
                raise StoppedError

        patch.setattr(progress, "__call__", stop)
        with pytest.raises(StoppedError):
            in_segments(checkpoint_every=every)
    found = in_segments(checkpoint_every=every)
    assert found[1] == whole[1] and numpy.array_equal(found[0], whole[0])


@pytest.mark.parametrize("segment", [0, 3, 7])
def test_a_segment_that_cannot_be_ended_is_ended_by_the_next_run(in_segments, monkeypatch, segment):
    """Frames of the next one wait for the writer by then."""
    whole, output, failed = in_segments(), core("video.output").VideoOutput, []
    commit = output.commit

    def full(self):
        if self._path.name == f"segment_{segment:09d}.mp4" and not failed:
            failed.append(self._path)
            time.sleep(1)
            raise OSError(errno.ENOSPC, "No space left on device")
        commit(self)

    monkeypatch.setattr(output, "commit", full)
    with pytest.raises(core("video.output").DiskFullError):
        in_segments()
    found = in_segments()
    assert failed and found[1] == whole[1] and numpy.array_equal(found[0], whole[0])


def test_a_frame_that_could_not_be_decoded_changes_no_segment(in_segments, monkeypatch):
    whole, vae, calls = in_segments(), core("host.vae").FrameVAE, []
    decode_frame = vae.decode

    def fail(self, *args, **more):
        calls.append(1)
        if len(calls) == 4:
            raise StoppedError
        return decode_frame(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(vae, "decode", fail)
        with pytest.raises(StoppedError):
            in_segments()
    found = in_segments()
    assert found[1] == whole[1] and numpy.array_equal(found[0], whole[0])


# What is said after a stop


def test_a_file_is_promised_only_where_there_is_one(folders, sd15, monkeypatch, caplog):
    writer = core("video.writer").SegmentWriter
    write, written = writer.write, []

    def full(self, *frame):
        written.append(frame)
        if len(written) == 6:
            with self._writing(self._output):
                raise OSError(errno.ENOSPC, "No space left on device")
        write(self, *frame)

    monkeypatch.setattr(writer, "write", full)
    with pytest.raises(core("video.output").DiskFullError):
        translate_video(block_clip(folders, range(FRAMES)), sd15, checkpoint_every=0)
    assert "video begins anew." in caplog.text and "file is kept" not in caplog.text
    assert "are in" not in caplog.text


def test_an_error_while_stopping_does_not_hide_the_first(folders, sd15, monkeypatch, caplog):
    calls, clip, file = Calls(sd15), block_clip(folders, range(FRAMES)), core("run.file")
    whole = translated(clip, sd15)

    def broken(*args, **options):
        raise ArithmeticError("broken")

    with monkeypatch.context() as patch, calls.stopping_at(9), pytest.raises(StoppedError):
        patch.setattr(file, "assemble", broken)
        translate_video(clip, sd15)
    assert "could not be joined: broken" in caplog.text
    assert torch.equal(translated(clip, sd15), whole)


def test_a_state_that_cannot_be_copied_is_told_of(folders, sd15, motion, monkeypatch, caplog):
    model, clip = patched(sd15, motion, 4, 2), block_clip(folders, range(FRAMES))
    whole, saving = translated(clip, model), core("run.saving")

    def no_memory(state):
        raise MemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(saving, "_copied", no_memory)
        assert torch.equal(translated(clip, model), whole)
    assert "was not saved: no memory" in caplog.text


def test_a_stopped_0_1_0_video_says_that_it_goes_on(stopped, sd15, monkeypatch, caplog):
    """The number of its frames is in the file alone."""
    for state in stopped.states[1:]:
        state.unlink()
    stopped.states[0].rename(stopped.folder / "stream.safetensors")
    (info,) = core("run.partial_folders").list_partial(stopped.folder.parent)
    assert "saved by version 0.1.0" in str(info)


# What is in the way


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
