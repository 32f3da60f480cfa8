"""Segments: complete or not there, and the same pictures however a run was cut."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import clips
import numpy as np
import pytest

from live2diff_core.video.encoder import Encoding
from live2diff_core.video.frame import VideoError
from live2diff_core.video.output import DiskFullError, VideoWriteError
from live2diff_core.video.reader import open_video
from live2diff_core.video.segments import assemble, list_segments
from live2diff_core.video.writer import SegmentWriter

FAST = Encoding(preset="ultrafast")
LOSSLESS = Encoding(codec="lossless", preset="ultrafast")
FRAME = Fraction(1, 25)


def noise(frames, size=clips.SIZE, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (frames, size[1], size[0], 3), np.uint8)


def writer_of(folder, settings=FAST, size=clips.SIZE, time_base=FRAME, **kwargs):
    return SegmentWriter(folder, settings, *size, time_base, **kwargs)


def write(folder, images, per_segment=10, settings=FAST, first=0, commit_last=True, **kwargs):
    size = (images.shape[2], images.shape[1])
    with writer_of(folder, settings, size, **kwargs) as writer:
        assert writer.next_frame == first
        for number in range(first, len(images)):
            writer.write(images[number], number * FRAME, FRAME)
            if writer.next_frame % per_segment == 0:
                writer.commit()
        if commit_last:
            writer.commit()
        return writer.segments


def decoded(path):
    with open_video(path) as reader:
        return list(reader)


@pytest.mark.parametrize("size", [(64, 48), (65, 49), (33, 8)])
def test_lossless_is_bit_exact(tmp_path, size):
    images = noise(7, size)
    segments = write(tmp_path, images, 3, LOSSLESS)
    shown = [frame.image for segment in segments for frame in decoded(segment.path)]
    assert np.array_equal(np.stack(shown), images)


@pytest.mark.parametrize("size", [(64, 48), (65, 48), (64, 49), (67, 51)])
def test_h264_is_what_players_take(tmp_path, size):
    images = np.stack([clips.picture(number, size) for number in range(6)])
    segment = write(tmp_path, images)[0]
    with av.open(str(segment.path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        even = tuple(side + side % 2 for side in size)
        assert (stream.width, stream.height) == even
        assert stream.format.name == "yuv420p"
        tags = (context.colorspace, context.color_range)
        assert tags + (context.color_primaries, context.color_trc) == (1, 1, 1, 1)
        assert not context.has_b_frames
    for number, frame in enumerate(decoded(segment.path)):
        image = frame.image[: size[1], : size[0]]
        assert clips.number_of(image) == number
        assert abs(image.astype(int) - images[number]).mean() < 3
        # The row or column that was added repeats its neighbour.
        assert abs(frame.image[:, -1].astype(int) - frame.image[:, -2]).mean() < 12


def test_colours_survive(tmp_path):
    """Written and tagged as BT.709: what is read by the tags is what was written."""
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 250, 250), (5, 5, 5), (200, 120, 30)]
    images = np.empty((6, 48, 64, 3), np.uint8)
    images[:] = np.array(colors, np.uint8)[:, None, None]
    segment = write(tmp_path, images, settings=Encoding(crf=1))[0]
    for frame, color in zip(decoded(segment.path), colors, strict=True):
        assert abs(frame.image.astype(int) - color).max() <= 3
    # The luma of pure red is BT.709's, by the formula.
    with av.open(str(segment.path)) as container:
        luma = np.frombuffer(next(container.decode(video=0)).planes[0], np.uint8)[0]
    assert abs(int(luma) - (16 + 219 * 0.2126)) <= 1


def test_a_segment_says_what_it_holds(tmp_path):
    segments = write(tmp_path, noise(25))
    assert [(s.first_frame, s.frames) for s in segments] == [(0, 10), (10, 10), (20, 5)]
    assert [(s.start, s.end) for s in segments] == [
        (0, 10 * FRAME),
        (10 * FRAME, 20 * FRAME),
        (20 * FRAME, 25 * FRAME),
    ]
    assert list_segments(tmp_path) == segments
    for segment in segments:
        frames = decoded(segment.path)
        assert len(frames) == segment.frames and frames[0].time == 0


@pytest.mark.parametrize("settings", [FAST, LOSSLESS, Encoding()])
@pytest.mark.parametrize("crash_at", [4, 10, 17])
def test_resumed_equals_uninterrupted(tmp_path, settings, crash_at):
    images = np.stack([clips.picture(number) for number in range(25)]) + noise(25) // 16
    whole = write(tmp_path / "whole", images, settings=settings)
    write(tmp_path / "cut", images[:crash_at], settings=settings, commit_last=False)
    safe = crash_at // 10 * 10
    parts = write(tmp_path / "cut", images, settings=settings, first=safe)
    assert [s.path.name for s in parts] == [s.path.name for s in whole]
    for one, other in zip(parts, whole, strict=True):
        assert one.path.read_bytes() == other.path.read_bytes()


SCRIPT = """
import os, resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
from live2diff_core.video.encoder import Encoding
from live2diff_core.video.output import DiskFullError
from live2diff_core.video.writer import SegmentWriter

settings = Encoding(codec=sys.argv[3], preset="ultrafast")
writer = SegmentWriter(Path(sys.argv[2]), settings, 64, 48, Fraction(1, 25))

def write(frames, commit_at):
    noise = np.random.default_rng(0)
    for i in range(frames):
        image = noise.integers(0, 256, (48, 64, 3), np.uint8)
        writer.write(image, i * Fraction(1, 25), Fraction(1, 25))
        if i + 1 == commit_at:
            writer.commit()
"""


def run_script(code, folder, codec):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", SCRIPT + code, str(root), str(folder), codec]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_what_a_crash_leaves_is_dropped(tmp_path):
    """Killed in mid-segment, nothing is tidied up: the next run does it."""
    run_script("write(14, 10)\nos.kill(os.getpid(), 9)", tmp_path, "h264")
    assert [path.suffix for path in sorted(tmp_path.iterdir())] == [".mp4", ".part"]
    assert [s.frames for s in list_segments(tmp_path)] == [10]
    writer = writer_of(tmp_path)
    assert writer.next_frame == 10 and len(list(tmp_path.iterdir())) == 1


def test_nothing_is_kept_behind_a_gap(tmp_path):
    segments = write(tmp_path, noise(40))
    segments[1].path.write_bytes(segments[1].path.read_bytes()[:-40])
    segments[2].path.with_name("notes.txt").write_text("stays")
    assert list_segments(tmp_path) == segments[:1]
    assert segments[3].path.exists(), "listing changes nothing"
    writer = writer_of(tmp_path)
    assert writer.segments == segments[:1] and writer.frames_safe == 10
    aside = {f"{segment.path.name}.aside" for segment in segments[1:]}
    assert {p.name for p in tmp_path.iterdir()} == {segments[0].path.name, "notes.txt", *aside}
    assert {path.name for path in writer.set_aside} == aside


def test_a_segment_that_is_gone_is_a_gap(tmp_path):
    segments = write(tmp_path, noise(30))
    segments[1].path.unlink()
    assert list_segments(tmp_path) == segments[:1]


def test_a_caller_whose_state_is_older_goes_back(tmp_path):
    images = noise(30)
    whole = [segment.path.read_bytes() for segment in write(tmp_path, images)]
    writer = writer_of(tmp_path)
    assert writer.keep_until(25) == 20 and writer.next_frame == 20
    assert writer.keep_until(10) == 10 and len(list(tmp_path.glob("*.mp4"))) == 1
    assert {path.read_bytes() for path in writer.set_aside} == set(whole[1:])
    again = write(tmp_path, images, first=10)
    assert [segment.path.read_bytes() for segment in again] == whole


@pytest.mark.parametrize(
    "other",
    [{"settings": LOSSLESS}, {"size": (64, 56)}, {"time_base": Fraction(1, 50)}],
    ids=["codec", "size", "clock"],
)
def test_other_settings_are_refused(tmp_path, other):
    write(tmp_path, noise(3))
    with pytest.raises(VideoError, match="other settings"):
        writer_of(tmp_path, **other)


def test_variable_times_are_exact(tmp_path):
    # Not a divisor of the 1/90000 that FFmpeg falls back to.
    time_base = Fraction(1, 12_800)
    ticks = [500, 1501, 1503, 4000, 9009, 9010, 20020]
    lengths = [b - a for a, b in zip(ticks, ticks[1:], strict=False)] + [777]
    with writer_of(tmp_path, LOSSLESS, time_base=time_base) as writer:
        for number, (tick, length) in enumerate(zip(ticks, lengths, strict=True)):
            writer.write(clips.picture(number), tick * time_base, length * time_base)
            if number in (2, 4):
                writer.commit()
        writer.commit()
    assert [s.start for s in writer.segments] == [t * time_base for t in (500, 4000, 9010)]
    assert list_segments(tmp_path) == writer.segments
    path = assemble(writer.segments, tmp_path / "out.mp4")
    frames = decoded(path)
    assert [frame.time for frame in frames] == [tick * time_base for tick in ticks]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        end = (stream.start_time + stream.duration) * stream.time_base
    assert end == (20020 + 777) * time_base


def test_wrong_frames_are_refused(tmp_path):
    writer = writer_of(tmp_path)
    writer.write(clips.picture(0), FRAME, FRAME)
    with pytest.raises(ValueError, match="times must increase"):
        writer.write(clips.picture(1), FRAME, FRAME)
    with pytest.raises(ValueError, match="Expected uint8"):
        writer.write(clips.picture(1, (32, 32)), 2 * FRAME, FRAME)
    with pytest.raises(ValueError, match="got float64"):
        writer.write(clips.picture(1) / 255, 2 * FRAME, FRAME)
    assert writer.commit().frames == 1 and writer.commit() is None


@pytest.mark.parametrize(
    "wrong", [{"codec": "mpeg2"}, {"crf": 0}, {"crf": 52}, {"preset": "hasty"}]
)
def test_settings_are_checked(wrong):
    with pytest.raises(VideoError):
        Encoding(**wrong)


@pytest.mark.parametrize("room", [0, 150_000, 210_000, 239_000])
def test_a_full_disk_says_what_is_safe(tmp_path, monkeypatch, room):
    """Wherever it fills up: in a header, a frame, or the index at a segment's end."""
    images = noise(40)
    clips.fill_disk(monkeypatch, room)
    with pytest.raises(DiskFullError, match="disk is full.*frames are safe") as caught:
        write(tmp_path, images, settings=LOSSLESS)
    safe = caught.value.frames_safe
    assert (
        caught.value.folder == tmp_path
        and safe == (room > 130_000) * 10 + (room > 230_000) * 0
        or safe
    )
    assert sum(s.frames for s in list_segments(tmp_path)) == safe
    assert not list(tmp_path.glob("*.part")), "the space is given back"
    monkeypatch.undo()
    segments = write(tmp_path, images, settings=LOSSLESS, first=safe)
    shown = [frame.image for segment in segments for frame in decoded(segment.path)]
    assert np.array_equal(np.stack(shown), images)


def test_a_file_that_cannot_be_renamed_says_why(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    with writer_of(tmp_path) as writer:
        writer.write(clips.picture(0), FRAME, FRAME)
        monkeypatch.setattr("os.replace", refuse)
        with pytest.raises(VideoWriteError, match="written .*Permission denied.* 0 frames"):
            writer.commit()
        assert writer.next_frame == 0 and not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
def test_a_real_limit_of_the_system(tmp_path):
    code = """
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write(40, 5)
except DiskFullError as error:
    sys.stdout.write(f"caught {error.frames_safe}")
"""
    result = run_script(code, tmp_path, "lossless")
    assert result.stdout == "caught 5", result.stderr
    assert [s.frames for s in list_segments(tmp_path)] == [5] and len(list(tmp_path.iterdir())) == 1
