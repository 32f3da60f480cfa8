"""Joining segments: every packet once, in time with the untouched sound."""

from fractions import Fraction

import av
import clips
import numpy as np
import pytest

from live2diff_core.video_reader import open_video
from live2diff_core.video_writer import (
    DiskFullError,
    EncoderSettings,
    SegmentWriter,
    VideoError,
    assemble,
    container_for,
)

FAST = EncoderSettings(preset="ultrafast")
LOSSLESS = EncoderSettings(codec="lossless", preset="ultrafast")


def decoded(path, *args):
    with open_video(path, *args) as reader:
        return list(reader)


def translate(source, folder, start=0.0, duration=0.0, per_segment=5, settings=FAST):
    """Copy a video's frames into segments, as the node does with translated ones."""
    with open_video(source, start, duration) as reader:
        info = reader.info
        with SegmentWriter(
            folder,
            settings,
            info.width,
            info.height,
            info.time_base,
            frame_rate=info.frame_rate,
            sample_aspect_ratio=info.sample_aspect_ratio,
        ) as writer:
            for frame in reader:
                writer.write(frame.image, frame.time, frame.duration)
                if writer.next_frame % per_segment == 0:
                    writer.commit()
            writer.commit()
            return writer.segments


def numbers(frames):
    return [clips.number_of(frame.image) for frame in frames]


def sound_end(path):
    seconds, _ = clips.sound_of(path)[-1]
    return float(seconds)


@pytest.mark.parametrize("settings", [FAST, LOSSLESS])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_out_are_frames_in(tmp_path, suffix, settings):
    source = clips.make_clip(tmp_path, frames=13)
    segments = translate(source, tmp_path / "work", settings=settings)
    output = assemble(segments, tmp_path / f"out{suffix}")
    joined = decoded(output)
    assert numbers(joined) == list(range(13))
    assert [frame.time for frame in joined] == [frame.time for frame in decoded(source)]
    pieces = [frame.image for segment in segments for frame in decoded(segment.path)]
    assert all(np.array_equal(a.image, b) for a, b in zip(joined, pieces, strict=True))
    with open_video(output) as reader:
        assert reader.info.frame_rate == 25
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("h264", {"ticks": [0, 1001, 1003, 4000, 9009, 9010], "time_base": Fraction(1, 30_000)}),
        ("h264", {"ticks": list(range(10, 22)), "sounds": ["aac"]}),
        ("h264_b", {"ticks": list(range(3, 15)), "sounds": ["aac"]}),
        ("h264_ts", {"ticks": list(range(50, 62)), "sounds": ["aac"]}),
        ("vp9", {"sounds": ["libopus"]}),
        ("gif", {}),
        ("h264_avi", {}),
        ("h264", {"turns": 1}),
        ("h264", {"size": (66, 50), "sample_aspect_ratio": Fraction(4, 3)}),
        ("h264", {"frames": 1}),
    ],
    ids=["vfr", "late", "late_b", "ts", "vp9", "gif", "avi", "rotated", "aspect", "one"],
)
def test_times_are_kept(tmp_path, kind, options):
    source = clips.make_clip(tmp_path, kind, **options)
    segments = translate(source, tmp_path / "work", per_segment=4)
    output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
    before, after = decoded(source), decoded(output)
    assert numbers(after) == numbers(before)
    assert [frame.time for frame in after] == [frame.time for frame in before]
    assert [f.duration for f in after][:-1] == [f.duration for f in before][:-1]
    with open_video(source) as one, open_video(output) as other:
        assert one.info.sample_aspect_ratio == other.info.sample_aspect_ratio
        assert one.info.audio_codecs == other.info.audio_codecs
    if options.get("sounds"):
        # In time: the distance from the first frame to each packet of sound.
        gaps = []
        for path in (source, output):
            with av.open(str(path)) as container:
                video = next(p for p in container.demux(video=0) if p.pts is not None)
                first = min(video.pts * video.time_base, 10**9)
            gaps.append([float(t - first) for t, _ in clips.sound_of(path)])
        np.testing.assert_allclose(gaps[0], gaps[1], atol=1e-4)


SOUNDS = {
    "aac": ".mp4",
    "libmp3lame": ".mp4",
    "ac3": ".mp4",
    "libopus": ".mp4",
    "flac": ".mp4",
    "alac": ".mp4",
    "pcm_s16le": ".mov",
    "pcm_s24le": ".mov",
    "wavpack": ".mkv",
}


@pytest.mark.parametrize("codec", sorted(SOUNDS))
def test_sound_is_copied_bit_for_bit(tmp_path, codec):
    source = clips.make_clip(tmp_path, "h264_mkv", sounds=[codec])
    assert container_for(source) == SOUNDS[codec]
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / f"out{SOUNDS[codec]}", audio_from=source)
    before, after = clips.sound_of(source), clips.sound_of(output)
    assert b"".join(data for _, data in before) == b"".join(data for _, data in after)
    with av.open(str(source)) as one, av.open(str(output)) as other:
        a, b = (list(c.decode(audio=0)) for c in (one, other))
        assert abs(sum(f.samples for f in a) - sum(f.samples for f in b)) <= 1024 + 312
    if SOUNDS[codec] == ".mp4":
        moments = [[float(t) for t, _ in packets] for packets in (before, after)]
        if len(moments[0]) == len(moments[1]):
            np.testing.assert_allclose(*moments, atol=2e-3)


def test_all_sounds_are_copied(tmp_path):
    source = clips.make_clip(tmp_path, sounds=["aac", "libmp3lame"], frames=20)
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / "out.mp4", audio_from=clips.in_memory(source))
    for stream in (0, 1):
        assert clips.sound_of(output, stream) == clips.sound_of(source, stream)
    mixed = clips.make_clip(tmp_path, "h264_mkv", sounds=["flac", "pcm_s16le"], name="mixed")
    assert container_for(mixed) == ".mkv"


def test_sound_that_is_longer_than_the_pictures_stays(tmp_path):
    source = clips.make_clip(tmp_path, sounds=["aac"], sound_seconds=2.0)
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
    assert clips.sound_of(output) == clips.sound_of(source)


def test_the_window_holds_for_sound_too(tmp_path):
    source = clips.make_clip(tmp_path, frames=60, gop=10, sounds=["aac"])
    segments = translate(source, tmp_path / "work", 0.9, 0.8)
    output = assemble(segments, tmp_path / "o.mp4", audio_from=source, start=0.9, duration=0.8)
    assert numbers(decoded(output)) == list(range(23, 43))
    inside = [(t, d) for t, d in clips.sound_of(source) if Fraction("0.9") <= t < Fraction("1.7")]
    copied = clips.sound_of(output)
    assert [d for _, d in copied] == [d for _, d in inside]
    shifts = [float(old - new) for (old, _), (new, _) in zip(inside, copied, strict=True)]
    np.testing.assert_allclose(shifts, 0.9, atol=1e-4)
    # From the start, the packet with the encoder's delay belongs to it.
    segments = translate(source, tmp_path / "head", 0, 0.5)
    output = assemble(segments, tmp_path / "head.mp4", audio_from=source, duration=0.5)
    assert clips.sound_of(output)[0] == clips.sound_of(source)[0]
    assert sound_end(output) < 0.5


def test_what_is_done_so_far_is_a_playable_file(tmp_path):
    source = clips.make_clip(tmp_path, frames=30, sounds=["aac"])
    segments = translate(source, tmp_path / "work", per_segment=10)
    for count in (1, 2):
        output = tmp_path / f"part{count}.mp4"
        assemble(segments[:count], output, audio_from=source, complete=False)
        assert numbers(decoded(output)) == list(range(10 * count))
        assert abs(sound_end(output) - 0.4 * count) < 0.03


def test_pictures_have_no_sound(tmp_path):
    for source in (clips.make_pictures(tmp_path), clips.make_webp(tmp_path)):
        assert container_for(source) == ".mp4"
        segments = translate(source, tmp_path / f"work_{source.name}")
        output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
        assert numbers(decoded(output)) == numbers(decoded(source))
        assert [f.time for f in decoded(output)] == [f.time for f in decoded(source)]
    assert container_for(None) == ".mp4"


def test_sound_of_a_damaged_original(tmp_path):
    source = clips.make_clip(tmp_path, frames=50, sounds=["aac"])
    cut = clips.cut(clips.index_first(source), 0.6)
    segments = translate(cut, tmp_path / "work")
    output = assemble(segments, tmp_path / "out.mp4", audio_from=cut)
    assert len(decoded(output)) == segments[-1].stop_frame > 10
    copied = clips.sound_of(output)
    assert 5 < len(copied) and copied[:-1] == clips.sound_of(source)[: len(copied) - 1]


def test_tags(tmp_path):
    segments = translate(clips.make_clip(tmp_path), tmp_path / "work")
    tags = {"workflow": '{"nodes": []}', "prompt": "ein Schiff, ∞"}
    for suffix in (".mp4", ".mkv"):
        path = assemble(segments, tmp_path / f"out{suffix}", metadata=tags)
        with av.open(str(path)) as container:
            found = {key.lower(): value for key, value in container.metadata.items()}
        assert tags.items() <= found.items()


@pytest.mark.parametrize(("settings", "codec"), [(FAST, "aac"), (LOSSLESS, "flac")])
def test_the_host_can_remux_the_result(tmp_path, settings, codec):
    """What ComfyUI's Save Video does with a video from a file: packets into a new mp4."""
    # FFmpeg 7 reads the last frame of an MP4 that starts late as shorter than it is, and then
    # drops it from every copy.
    first = 5 if av.library_versions["libavformat"][0] >= 62 else 0
    ticks = list(range(first, first + 12))
    source = clips.make_clip(tmp_path, "h264_mkv", sounds=[codec], ticks=ticks)
    segments = translate(source, tmp_path / "work", settings=settings)
    output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
    saved = tmp_path / "saved.mp4"
    options = {"movflags": "use_metadata_tags+faststart"}
    with av.open(str(output)) as old, av.open(str(saved), "w", options=options) as new:
        assert old.streams.video[0].codec.name == "h264"
        streams = {s: new.add_stream_from_template(template=s, opaque=True) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                new.mux(packet)
    for one, other in zip(decoded(saved), decoded(output), strict=True):
        assert np.array_equal(one.image, other.image)
        # The host's edit lists count in milliseconds.
        assert abs(one.time - other.time) <= Fraction(1, 1000)
    assert [d for _, d in clips.sound_of(saved)] == [d for _, d in clips.sound_of(output)]


def test_segments_that_do_not_belong_together(tmp_path):
    source = clips.make_clip(tmp_path)
    segments = translate(source, tmp_path / "work")
    others = translate(source, tmp_path / "other", settings=LOSSLESS)
    for wrong in ([segments[0], segments[2]], [segments[0], others[1]], segments[1:]):
        with pytest.raises(VideoError, match="does not continue"):
            assemble(wrong, tmp_path / "out.mp4")
    with pytest.raises(VideoError, match="no frames"):
        assemble([], tmp_path / "out.mp4")
    with pytest.raises(VideoError, match="choose one of .mp4"):
        assemble(segments, tmp_path / "out.avi")
    assert not list(tmp_path.glob("out*"))


def test_sound_that_does_not_fit(tmp_path):
    source = clips.make_clip(tmp_path, "h264_mkv", sounds=["wavpack"])
    segments = translate(source, tmp_path / "work")
    assert container_for(source) == ".mkv"
    with pytest.raises(VideoError, match="wavpack sound does not fit into a mp4"):
        assemble(segments, tmp_path / "out.mp4", audio_from=source)
    assert not list(tmp_path.glob("out*"))
    assemble(segments, tmp_path / "out.mkv", audio_from=source)


@pytest.mark.parametrize("room", [0, 2000])
def test_a_full_disk_leaves_the_segments_and_the_old_file(tmp_path, monkeypatch, room):
    segments = translate(clips.make_clip(tmp_path), tmp_path / "work")
    output = tmp_path / "out.mp4"
    output.write_bytes(b"from an earlier run")
    clips.fill_disk(monkeypatch, room)
    with pytest.raises(DiskFullError, match="12 frames are safe"):
        assemble(segments, output)
    assert output.read_bytes() == b"from an earlier run" and not list(tmp_path.glob("*.part"))
    monkeypatch.undo()
    assert len(decoded(assemble(segments, output))) == 12
