"""Broken files: every frame that decodes, a warning with the place, and clear errors."""

import logging
import os

import clips
import numpy as np
import pytest

from live2diff_core.video.frame import MAX_WARNINGS, VideoError, WarningLog
from live2diff_core.video.reader import open_video


def read(source, *args, **kwargs):
    with open_video(source, *args, **kwargs) as reader:
        return list(reader), reader


def numbers(frames):
    return [clips.number_of(frame.image) for frame in frames]


@pytest.mark.parametrize("kind", ["h264", "h264_mkv", "h264_ts", "vp9", "prores", "mjpeg"])
@pytest.mark.parametrize("part", [0.3, 0.52, 0.8])
def test_a_file_that_is_cut_off(tmp_path, kind, part, caplog):
    """Cut anywhere, in the middle of a packet too: the frames before are there, no exception."""
    noise = np.random.default_rng(0).integers(0, 30, (30, 48, 64, 3), np.uint8)
    images = [clips.picture(number) + noise[number] // 3 for number in range(30)]
    path = clips.make_clip(tmp_path, kind, frames=30, images=images, ticks=list(range(30)))
    if path.suffix in (".mp4", ".mov"):
        path = clips.index_first(path)
    frames, reader = read(clips.cut(path, part))
    assert 3 <= len(frames) < 30
    # The last one may be repaired from half a packet.
    assert numbers(frames)[:-1] == list(range(len(frames) - 1))
    times = [frame.time for frame in frames]
    assert all(a < b for a, b in zip(times, times[1:], strict=False))
    # A stream for broadcasting has no stated end: only a broken packet shows.
    if kind != "h264_ts":
        assert reader.warnings, "it is said"
        assert reader.warnings[-1].frame >= len(frames) - 2
        assert str(reader.warnings[0]) in caplog.text


@pytest.mark.parametrize("kind", ["h264", "h264_mkv", "hevc", "vp9", "prores", "mjpeg"])
def test_damage_in_the_middle(tmp_path, kind):
    path = clips.make_clip(tmp_path, kind, frames=30, gop=6)
    damaged = clips.damage(path, {9, 10})
    frames, reader = read(damaged)
    shown = numbers(frames)
    # What comes before, and what comes after the next keyframe, is untouched.
    assert shown[:7] == list(range(7))
    assert shown[-18:] == list(range(12, 30))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    # Times are those of the file, not counted: what is missing is a gap.
    last = frames[-1]
    assert abs(float(last.time) - 29 / 25) < 1e-3
    assert reader.warnings and 7 <= reader.warnings[0].frame <= 10
    assert reader.warnings[0].time is not None and reader.warnings[0].byte is not None


def test_damaged_files_decode_the_same_every_time(tmp_path):
    """A resumed video must equal an uninterrupted one."""
    damaged = clips.damage(clips.make_clip(tmp_path, "h264_b", frames=40, gop=40), {7, 20, 21})
    first, second = read(damaged)[0], read(damaged)[0]
    assert [f.time for f in first] == [f.time for f in second]
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    with open_video(damaged) as reader:
        reader.skip(25)
        for one, other in zip(reader, first[25:], strict=True):
            assert np.array_equal(one.image, other.image)


def test_each_place_is_told_once(caplog):
    log = WarningLog("a.mp4")
    with caplog.at_level(logging.WARNING):
        for frame in (3, 3, 3, 5, 5):
            log.warn("Damage", frame, byte=17)
    assert [str(w) for w in log.warnings] == [
        "Damage (at frame 3, byte 17)",
        "Damage (at frame 5, byte 17)",
    ]
    assert caplog.text.count("a.mp4: Damage") == 2
    for frame in range(10, 10 + 2 * MAX_WARNINGS):
        log.warn("Damage", frame)
    assert len(log.warnings) == MAX_WARNINGS + 1
    assert "not listed" in str(log.warnings[-1])


def test_a_healthy_file_has_no_warnings(tmp_path, caplog):
    for kind, options in (("h264_b", {"sounds": ["aac"], "sound_seconds": 2}), ("h264_mkv", {})):
        _, reader = read(clips.make_clip(tmp_path, kind, **options))
        assert not reader.warnings
    assert not caplog.text


def test_what_is_no_video(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.txt").write_text("Hello\n" * 100)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nclip.ts\n")
    clips.make_clip(tmp_path, "h264_ts")
    cut = clips.cut(clips.make_clip(tmp_path, frames=40), 0.5, name="no_index")
    cases = {
        tmp_path / "missing.mp4": "There is no file .*missing.mp4",
        tmp_path / "empty.mp4": "empty.mp4 is empty",
        tmp_path / "text.txt": "text.txt is not a video",
        tmp_path / "noise.mp4": "noise.mp4 is not a video|noise.mp4: not one frame|no video stream",
        tmp_path / "list.m3u8": "list.m3u8 is not a video",
        cut: "without an index: the recording or download was cut off",
        clips.make_sound(tmp_path): r"no video stream. It holds audio \(aac\)",
        "http://example.invalid/video.mp4": "There is no file http",
    }
    for source, message in cases.items():
        with pytest.raises(VideoError, match=message):
            open_video(source)
    with pytest.raises(VideoError, match="the video in memory is empty"):
        open_video(clips.BytesIO())


def test_a_song_with_a_cover_is_no_video(tmp_path):
    import av

    path = tmp_path / "song.mp4"
    plain = clips.make_clip(tmp_path, "mjpeg", frames=1, sounds=["aac"])
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        streams = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        streams[0].disposition = av.stream.Disposition.attached_pic.value
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    with pytest.raises(VideoError, match=r"no video stream. It holds audio \(aac\)"):
        open_video(path)


def test_a_window_below_zero(tmp_path):
    for window in ((-1, 0), (0, -1), (float("nan"), 0), (0, float("inf"))):
        with pytest.raises(VideoError, match="cannot be cut"):
            open_video(clips.make_clip(tmp_path), *window)


def test_a_file_that_nobody_may_read(tmp_path, monkeypatch):
    path = clips.make_clip(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", refuse)
    with pytest.raises(VideoError, match="cannot be read: Permission denied"):
        open_video(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes there")
def test_a_pipe_or_a_folder_is_no_video(tmp_path):
    """To open a pipe waits for its other end for ever."""
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match="pipe.mp4 is no file, but a folder, a pipe or a device"):
        open_video(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="folder.mp4"):
        open_video(tmp_path / "folder.mp4")
