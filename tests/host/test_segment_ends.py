"""Segments end at the same frames however a run was stopped, and what is said is true."""

import errno
import time
from importlib import import_module
from pathlib import Path

import av
import folder_paths
import numpy
import pytest
import torch
from host_stream import PACK, core, patched
from stopped_video import FRAMES, Stopped
from stream_video import (
    Calls,
    StoppedError,
    block_clip,
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
