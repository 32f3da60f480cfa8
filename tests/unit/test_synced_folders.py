"""New names survive a crash: the folder is synchronised after a file got its name."""

import os
from fractions import Fraction

import numpy
import pytest
import torch

from live2diff_core.run.state_file import save_state
from live2diff_core.video.encoder import Encoding
from live2diff_core.video.segments import put_aside
from live2diff_core.video.writer import SegmentWriter


@pytest.fixture
def synced(monkeypatch):
    """What lay in a folder each time that it was synchronised."""
    seen, fsync = [], os.fsync

    def note(handle):
        path = os.readlink(f"/proc/self/fd/{handle}")
        if os.path.isdir(path):
            seen.append(set(os.listdir(path)))
        fsync(handle)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("the names of open folders cannot be told here")
    monkeypatch.setattr(os, "fsync", note)
    return seen


def test_a_state(tmp_path, synced):
    save_state(tmp_path / "state.safetensors", {"a": torch.zeros(3)}, {})
    assert synced[-1] == {"state.safetensors"}


def test_what_is_put_aside(tmp_path, synced):
    (tmp_path / "file").touch()
    put_aside(tmp_path / "file")
    assert synced[-1] == {"file.aside"}


def test_a_segment_and_one_that_is_ended_before_its_time(tmp_path, synced):
    image, tick = numpy.zeros((48, 64, 3), numpy.uint8), Fraction(1, 25)
    fast = Encoding(preset="ultrafast")
    with SegmentWriter(tmp_path, fast, 64, 48, tick, keep_pictures=True) as writer:
        writer.write(image, 0 * tick, tick)
        writer.commit()
        assert {"segment_000000000.mp4"} <= synced[-1]
        writer.write(image, 1 * tick, tick)
        writer.pause()
        assert {"unfinished.mp4", "pictures.mkv"} <= synced[-1]
