"""Files that FFmpeg cannot read for a reason outside them are not damaged."""

from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest

from live2diff_core.video import segments, unfinished
from live2diff_core.video.encoder import Encoding
from live2diff_core.video.segments import list_segments
from live2diff_core.video.unfinished import (
    DamagedPicturesError,
    UnfinishedPictures,
    count_pictures,
    read_pictures,
)
from live2diff_core.video.writer import SegmentWriter

OUTSIDE = [av.error.OSError(5, "Input/output error"), av.error.MemoryError(12, "No memory")]
DAMAGE = av.error.InvalidDataError(1094995529, "Invalid data")


@pytest.fixture
def pictures(tmp_path):
    kept = UnfinishedPictures(tmp_path / "pictures.mkv", 64, 48)
    for level in (0, 100, 200):
        kept.write(np.full((48, 64, 3), level, np.uint8))
    kept.close()
    return kept.path


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "segments"
    place.mkdir()
    with SegmentWriter(place, Encoding("lossless"), 64, 48, Fraction(1, 25)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8), Fraction(0), Fraction(1, 25))
        writer.commit()
    return place


@contextmanager
def reading_fails(monkeypatch, module, error, way):
    """Let FFmpeg fail with `error` when it opens a file, or while it reads it."""
    real = av.open

    class Failing:
        def __init__(self, *arguments):
            self._container = real(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._container.close()

        def _fail(self, **_):
            raise error
            yield

        demux = decode = _fail

    def refuse(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(module.av, "open", refuse if way == "open" else Failing)
        yield


@pytest.mark.parametrize("way", ["open", "read"])
@pytest.mark.parametrize("error", OUTSIDE, ids=str)
def test_pictures_that_cannot_be_read_now(pictures, monkeypatch, error, way):
    with reading_fails(monkeypatch, unfinished, error, way):
        for read in (count_pictures, lambda path: list(read_pictures(path))):
            with pytest.raises(type(error)):
                read(pictures)
    assert count_pictures(pictures) == len(list(read_pictures(pictures))) == 3


@pytest.mark.parametrize("way", ["open", "read"])
def test_pictures_that_are_damaged(pictures, monkeypatch, way):
    with reading_fails(monkeypatch, unfinished, DAMAGE, way):
        assert count_pictures(pictures) == 0
        with pytest.raises(DamagedPicturesError, match="pictures.mkv is damaged"):
            list(read_pictures(pictures))


@pytest.mark.parametrize("error", OUTSIDE, ids=str)
def test_a_segment_that_cannot_be_read_now(folder, monkeypatch, error):
    with reading_fails(monkeypatch, segments, error, "open"), pytest.raises(type(error)):
        list_segments(folder)
    assert len(list_segments(folder)) == 1


def test_a_segment_that_is_damaged(folder, monkeypatch):
    with reading_fails(monkeypatch, segments, DAMAGE, "open"):
        assert list_segments(folder) == []
