"""Every frame of every kind of video: in order, with its exact time, upright, in true colours."""

from fractions import Fraction

import av
import clips
import numpy as np
import pytest

from live2diff_core.video import decoder as video_decoder
from live2diff_core.video.container import open_container
from live2diff_core.video.decoder import FrameClock
from live2diff_core.video.frame import VideoError
from live2diff_core.video.reader import open_video

FRAME = Fraction(1, 25)


def read(source, *args, **kwargs):
    with open_video(source, *args, **kwargs) as reader:
        return list(reader), reader


def numbers(frames):
    return [clips.number_of(frame.image) for frame in frames]


def times(frames):
    return [frame.time for frame in frames]


@pytest.mark.parametrize("kind", sorted(clips.KINDS))
def test_every_kind_gives_all_frames_in_order(tmp_path, kind):
    frames, reader = read(clips.make_clip(tmp_path, kind, frames=9))
    assert numbers(frames) == list(range(9))
    assert [frame.index for frame in frames] == list(range(9))
    assert (reader.info.width, reader.info.height) == clips.SIZE
    assert not reader.warnings
    # Coarse clocks round: 1/1000 in Matroska.
    np.testing.assert_allclose([float(t) for t in times(frames)], np.arange(9) / 25, atol=6e-4)
    np.testing.assert_allclose([float(f.duration) for f in frames], 1 / 25, atol=1.1e-3)


@pytest.mark.parametrize("kind", ["h264", "vp9", "gif"])
def test_bytes_in_memory_are_read_as_the_file_is(tmp_path, kind):
    path = clips.make_clip(tmp_path, kind)
    memory = clips.in_memory(path)
    memory.seek(3)
    for one, other in zip(read(path)[0], read(memory)[0], strict=True):
        assert one.time == other.time and np.array_equal(one.image, other.image)


def test_what_is_known_of_a_video(tmp_path):
    path = clips.make_clip(
        tmp_path, sounds=["aac", "libmp3lame"], sample_aspect_ratio=Fraction(4, 3)
    )
    with open_video(path) as reader:
        info = reader.info
    assert info.frame_rate == 25 and info.frame_count == 12 and info.rotation == 0
    assert info.codec == "h264" and info.audio_codecs[0] == "aac"
    assert info.audio_codecs[1].startswith("mp3")
    assert info.sample_aspect_ratio == Fraction(4, 3)


def test_images_are_plain_arrays(tmp_path):
    for source in (clips.make_clip(tmp_path, turns=1), clips.make_webp(tmp_path)):
        image = read(source)[0][0].image
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert image.flags.c_contiguous and image.flags.writeable


def test_a_variable_frame_rate_keeps_its_exact_times(tmp_path):
    ticks = [0, 1001, 1003, 4000, 9009, 9010, 20020]
    time_base = Fraction(1, 30_000)
    frames, reader = read(clips.make_clip(tmp_path, ticks=ticks, time_base=time_base))
    assert times(frames) == [tick * time_base for tick in ticks]
    expected = [b - a for a, b in zip(ticks, ticks[1:], strict=False)]
    assert [frame.duration / time_base for frame in frames[:-1]] == expected
    assert frames[-1].duration > 0
    assert (frames[-1].time / reader.info.time_base).denominator == 1


def test_a_duration_lasts_until_the_next_frame(tmp_path):
    """Matroska's own durations are those of the average rate."""
    ticks = [0, 40, 200, 230, 1000]
    path = clips.make_clip(tmp_path, "h264_mkv", ticks=ticks, time_base=Fraction(1, 1000))
    frames, _ = read(path)
    assert [frame.time * 1000 for frame in frames] == ticks
    assert [frame.duration * 1000 for frame in frames[:-1]] == [40, 160, 30, 770]


def test_stamps_that_repeat_run_back_or_are_missing():
    clock = FrameClock(first=100, ticks_per_frame=40)
    stamps = [None, 140, 140, 120, 150, None, 300, 200, 340]
    assert [clock.ticks(stamp) for stamp in stamps] == [100, 140, 141, 142, 150, 190, 300, 301, 340]
    assert clock.guessed and not FrameClock(0, 1).guessed


def test_an_index_that_leads_too_far(tmp_path, monkeypatch):
    """Some files' keyframes are listed at the wrong times: nothing may be missing for it."""

    class WrongIndex:
        def __init__(self, container):
            self.container = container

        def __getattr__(self, name):
            return getattr(self.container, name)

        def seek(self, offset, stream):
            self.container.seek(offset + 8 * 512, stream=stream)

    monkeypatch.setattr(video_decoder, "open_container", lambda s: WrongIndex(open_container(s)))
    path = clips.make_clip(tmp_path, frames=40, gop=4)
    assert numbers(read(path, start=0.8)[0]) == list(range(20, 40))


def test_a_late_start_is_kept(tmp_path):
    path = clips.make_clip(tmp_path, ticks=list(range(10, 16)), sounds=["aac"])
    frames, _ = read(path)
    assert numbers(frames) == list(range(6))
    assert times(frames) == [tick * FRAME for tick in range(10, 16)]


def test_an_arbitrary_clock_begins_at_zero(tmp_path):
    """MPEG-TS begins anywhere."""
    path = clips.make_clip(tmp_path, "h264_ts", ticks=list(range(50, 62)))
    with av.open(str(path)) as container:
        assert container.streams.video[0].start_time == 2 * 90_000
    frames, _ = read(path)
    assert times(frames) == [tick * FRAME for tick in range(12)]
    frames, _ = read(path, start=0.16)
    assert numbers(frames) == list(range(4, 12)) and frames[0].time == 0


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotated_videos_come_out_upright(tmp_path, turns):
    frames, reader = read(clips.make_clip(tmp_path, frames=4, turns=turns))
    assert numbers(frames) == [0, 1, 2, 3]
    assert (reader.info.width, reader.info.height) == clips.SIZE
    assert frames[0].image.shape == (48, 64, 3)
    assert reader.info.rotation == {1: 270, 2: 180, 3: 90}[turns]


@pytest.mark.parametrize("size", [(65, 49), (67, 48), (98, 51), (33, 47)])
@pytest.mark.parametrize("kind", ["h264_444", "vp9", "prores", "hevc10"])
def test_widths_of_all_kinds_decode_the_same_every_time(tmp_path, kind, size):
    """swscale has paths that leave the last columns as they happen to lie in memory."""
    if kind in ("prores", "hevc10"):
        size = (size[0] // 2 * 2, size[1] // 2 * 2)
    path = clips.make_clip(tmp_path, kind, frames=3, size=size)
    results = []
    for level in (0, 255, 77):
        _soil_memory(size, level)
        frames, reader = read(path)
        assert numbers(frames) == [0, 1, 2] and (reader.info.width, reader.info.height) == size
        results.append(np.stack([frame.image for frame in frames]))
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    # The last columns are those of the picture.
    expected = np.stack([clips.picture(number, size) for number in range(3)]).astype(int)
    assert abs(results[0][:, :, -3:].astype(int) - expected[:, :, -3:]).mean() < 12


def _soil_memory(size, level):
    """Leave freed frames full of `level` for the next allocations."""
    soiled = [av.VideoFrame(*size, format) for format in ("rgb24", "yuv444p", "yuv420p") * 6]
    for frame in soiled:
        for plane in frame.planes:
            plane.update(bytes([level]) * plane.buffer_size)


COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (90, 140, 60)]
# AVColorSpace, AVColorRange, and the luma weights of red and blue.
TAGS = [(1, 1, 0.2126, 0.0722), (1, 2, 0.2126, 0.0722), (6, 1, 0.299, 0.114), (6, 2, 0.299, 0.114)]


@pytest.mark.parametrize(("matrix", "range_", "red", "blue"), TAGS)
def test_colours_follow_the_tags(tmp_path, matrix, range_, red, blue):
    """The encoder gets luma and chroma by the standard's formula; nothing of swscale is in it."""
    path = tmp_path / "colours.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 66, 48, "yuv444p"
        context = stream.codec_context
        context.colorspace, context.color_range = matrix, range_
        for color in COLORS:
            y = np.dot([red, 1 - red - blue, blue], color) / 255
            cb = (color[2] / 255 - y) / (2 - 2 * blue)
            cr = (color[0] / 255 - y) / (2 - 2 * red)
            limited = [16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr]
            levels = limited if range_ == 1 else [255 * y, 128 + 255 * cb, 128 + 255 * cr]
            levels = np.round(levels).clip(0, 255).astype(np.uint8)
            planes = np.broadcast_to(levels[:, None, None], (3, 48, 66))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(planes), format="yuv444p")
            frame.colorspace, frame.color_range = matrix, range_
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for frame, color in zip(read(path)[0], COLORS, strict=True):
        assert abs(frame.image.astype(int) - color).max() <= 2, (color, frame.image[0, 0])


def test_trimming_keeps_the_frames_inside(tmp_path):
    path = clips.make_clip(tmp_path, "h264_b", frames=40, gop=8)
    everything = read(path)[0]
    frames, reader = read(path, start=0.84, duration=0.4)
    assert numbers(frames) == list(range(21, 31))
    assert [frame.index for frame in frames] == list(range(10))
    assert times(frames) == [tick * FRAME for tick in range(10)]
    assert reader.info.frame_count == 10
    for frame, whole in zip(frames, everything[21:31], strict=True):
        assert np.array_equal(frame.image, whole.image)


def test_between_frames_the_first_one_keeps_its_distance(tmp_path):
    """So that it stays in time with the sound, which begins where the window does."""
    path = clips.make_clip(tmp_path)
    frames, _ = read(path, start=0.1, duration=0.1)
    assert numbers(frames) == [3, 4]
    assert times(frames) == [Fraction(2, 100), Fraction(6, 100)]
    assert frames[-1].duration == Fraction(4, 100)


def test_a_last_frame_ends_with_the_window(tmp_path):
    path = clips.make_clip(tmp_path, ticks=[0, 10, 20], time_base=FRAME)
    frames, _ = read(path, duration=0.5)
    assert numbers(frames) == [0, 1]
    assert frames[-1].time + frames[-1].duration == Fraction(1, 2)


def test_a_window_behind_the_end_says_so(tmp_path):
    with pytest.raises(VideoError, match="no frames in the part.*0.480 s long"):
        open_video(clips.make_clip(tmp_path), start=9)


def test_files_without_presentation_stamps_get_times(tmp_path):
    path = clips.make_clip(tmp_path, suffix=".h264")
    frames, _ = read(path)
    assert numbers(frames) == list(range(12))
    steps = {b - a for a, b in zip(times(frames), times(frames)[1:], strict=False)}
    assert len(steps) == 1 and steps.pop() > 0
    frames, _ = read(path, start=float(frames[5].time) + 1e-5)
    assert numbers(frames)[0] in (5, 6)


@pytest.mark.parametrize("at", [0, 1, 7, 11])
def test_skipping_goes_on_with_the_same_frames(tmp_path, at):
    path = clips.make_clip(tmp_path, "h264_b", gop=5)
    everything = read(path)[0]
    with open_video(path) as reader:
        reader.skip(at)
        rest = list(reader)
    for one, other in zip(rest, everything[at:], strict=True):
        assert (one.index, one.time, one.duration) == (other.index, other.time, other.duration)
        assert np.array_equal(one.image, other.image)


def test_skipping_too_far_or_back(tmp_path):
    with open_video(clips.make_clip(tmp_path)) as reader:
        next(reader)
        with pytest.raises(ValueError, match="has been read"):
            reader.skip(0)
        with pytest.raises(VideoError, match="ends after 12 frames"):
            reader.skip(13)


def test_one_frame(tmp_path):
    frames, reader = read(clips.make_clip(tmp_path, frames=1))
    assert numbers(frames) == [0] and frames[0].duration == FRAME and not reader.warnings


def test_frames_are_decoded_only_when_asked_for(tmp_path, monkeypatch):
    """A file that is taken away in mid-read has given its first frames."""
    decoded = []
    ticks = FrameClock.ticks
    monkeypatch.setattr(FrameClock, "ticks", lambda *args: decoded.append(args) or ticks(*args))
    path = clips.make_clip(tmp_path, frames=60)
    with open_video(path) as reader:
        assert next(reader).index == 0
        assert len(decoded) <= 2
