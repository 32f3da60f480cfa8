"""Checksums of the files that belong to a state: what was changed or exchanged is named."""

import pytest

from live2diff_core.run.written_files import FILES, WrittenFiles


@pytest.fixture
def files(tmp_path):
    segments = [tmp_path / f"segment_{number:09d}.mp4" for number in (0, 5, 10)]
    for path in segments:
        path.write_bytes(path.name.encode() * 1000)
    pictures = tmp_path / "state_000000012.mkv"
    pictures.write_bytes(b"pictures")
    return segments, pictures, {FILES: WrittenFiles().numbers(segments, pictures)}


def test_what_is_as_it_was_is_not_named(files):
    segments, pictures, state = files
    assert WrittenFiles().changed(state, segments, pictures) is None
    assert WrittenFiles().changed(state, segments[:1], pictures) is None


def test_a_changed_file_is_named(files):
    segments, pictures, state = files
    for path in (*segments, pictures):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"x")
        assert WrittenFiles().changed(state, segments, pictures) == path
        path.write_bytes(whole)


def test_exchanged_files_are_named(files):
    segments, pictures, state = files
    one, two = (path.read_bytes() for path in segments[1:])
    segments[1].write_bytes(two)
    segments[2].write_bytes(one)
    assert WrittenFiles().changed(state, segments, pictures) == segments[1]


def test_missing_pictures_and_segments_of_later_are_not_its_matter(files):
    segments, pictures, state = files
    pictures.unlink()
    later = segments[0].with_name("segment_000000015.mp4")
    later.write_bytes(b"later")
    assert WrittenFiles().changed(state, [*segments, later], pictures) is None


def test_states_without_checksums_are_believed(files):
    segments, pictures, _ = files
    assert WrittenFiles().changed({}, segments, pictures) is None


def test_a_file_is_read_once(files, monkeypatch):
    segments, pictures, state = files
    written = WrittenFiles()
    written.numbers(segments, pictures)
    monkeypatch.setattr(type(pictures), "open", None)
    assert written.changed(state, segments, pictures) is None
