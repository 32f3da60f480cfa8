"""Joining segments: every packet once, in time with the untouched sound."""

from fractions import Fraction

import av
import clips
import numpy as np
import pytest

from live2diff_core.video.encoder import Encoding
from live2diff_core.video.frame import VideoError
from live2diff_core.video.output import DiskFullError
from live2diff_core.video.reader import open_video
from live2diff_core.video.segments import assemble
from live2diff_core.video.sound import container_for
from live2diff_core.video.writer import SegmentWriter

# FFmpeg 7 reads the last frame of an MP4 track that starts late as shorter than it is, and then
# drops it from every copy.
COPIES_LATE_TRACKS = av.library_versions["libavformat"][0] >= 62
FAST = Encoding(preset="ultrafast")
LOSSLESS = Encoding(codec="lossless", preset="ultrafast")


def decoded(path, *args):
    with open_video(path, *args) as reader:
        return list(reader)


def translate(source, folder, start=0.0, duration=0.0, per_segment=5, settings=FAST, **options):
    """Copy a video's frames into segments, as the node does with translated ones."""
    with open_video(source, start, duration, **options) as reader:
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


def host_copy(path, folder):
    """What ComfyUI's Save Video does with a video from a file: packets into a new mp4."""
    saved = folder / "saved.mp4"
    options = {"movflags": "use_metadata_tags+faststart"}
    with av.open(str(path)) as old, av.open(str(saved), "w", options=options) as new:
        streams = {s: new.add_stream_from_template(template=s, opaque=True) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream]
                new.mux(packet)
    return saved


def samples_of(path, stream=0):
    """Decoded sound, int [samples, channels] on 24 bits; and the second at which it begins."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.audio[stream]))
    begin = float(frames[0].time)
    layout = f"{frames[0].layout.nb_channels}c"
    resampler = av.AudioResampler(format="s32p", layout=layout, rate=frames[0].sample_rate)
    parts = []
    for frame in frames:
        if "channels" in frame.layout.name:
            plain = av.AudioFrame.from_ndarray(frame.to_ndarray(), frame.format.name, layout)
            plain.sample_rate, frame = frame.sample_rate, plain
        frame.pts = None
        parts += [part.to_ndarray() for part in resampler.resample(frame)]
    return np.concatenate(parts, axis=1).T >> 8, begin


# Kind of video, encoder: suffix of the result.
COPIED = {
    ("h264_mkv", "aac"): ".mp4",
    ("h264_mkv", "libmp3lame"): ".mp4",
    ("h264_mkv", "mp2"): ".mp4",
    ("h264_mkv", "ac3"): ".mp4",
    ("h264_mkv", "eac3"): ".mp4",
    ("h264_mkv", "libopus"): ".mp4",
    ("vp9", "libopus"): ".mp4",
    ("vp9", "vorbis"): ".mp4",
    ("h264_mkv", "flac"): ".mp4",
    ("h264_mkv", "alac"): ".mp4",
    ("h264_mkv", "pcm_s16le"): ".mov",
    ("h264_mkv", "pcm_s24le"): ".mov",
    ("h264_mkv", "pcm_f32le"): ".mov",
    ("h264_avi", "pcm_s16le"): ".mov",
    ("h264_avi", "pcm_s32le"): ".mov",
    ("mjpeg", "pcm_s16be"): ".mov",
    ("mjpeg", "pcm_f64le"): ".mov",
}
CONVERTED = [
    ("h264_mkv", "wavpack"),
    ("h264_mkv", "tta"),
    ("h264_mkv", "pcm_u8"),
    ("h264_avi", "pcm_alaw"),
    ("h264_avi", "pcm_mulaw"),
    ("h264_avi", "adpcm_ms"),
    ("h264_avi", "adpcm_ima_wav"),
    ("h264_avi", "wmav2"),
    ("mjpeg", "pcm_s8"),
    ("mjpeg", "adpcm_ima_qt"),
]


@pytest.mark.parametrize(
    ("kind", "codec", "layout"),
    [
        (*key, layout)
        for key in sorted(COPIED)
        for layout in ("mono", "stereo")
        if (key[1], layout) != ("vorbis", "mono")  # FFmpeg cannot encode it
    ],
)
def test_sound_is_copied_bit_for_bit(tmp_path, kind, codec, layout):
    """Into our file, and from there into the one that the host's Save Video makes."""
    source = clips.make_clip(tmp_path, kind, sounds=[codec], layout=layout)
    assert container_for(source) == COPIED[kind, codec]
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / f"out{container_for(source)}", audio_from=source)
    saved = host_copy(output, tmp_path)
    before = clips.sound_of(source)
    for path in (output, saved):
        after = clips.sound_of(path)
        assert b"".join(data for _, data in before) == b"".join(data for _, data in after)
        with av.open(str(source)) as one, av.open(str(path)) as other:
            a, b = (list(c.decode(audio=0)) for c in (one, other))
            assert abs(sum(f.samples for f in a) - sum(f.samples for f in b)) <= 1024 + 312
        if COPIED[kind, codec] == ".mp4" and len(before) == len(after):
            moments = [[float(t) for t, _ in packets] for packets in (before, after)]
            np.testing.assert_allclose(*moments, atol=2e-3)


@pytest.mark.parametrize("layout", ["mono", "stereo"])
@pytest.mark.parametrize(("kind", "codec"), CONVERTED)
def test_sound_that_mp4_does_not_take_becomes_flac(tmp_path, kind, codec, layout):
    source = clips.make_clip(tmp_path, kind, sounds=[codec], layout=layout)
    assert container_for(source) == ".mp4"
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
    heard, begin = samples_of(source)
    copies = [host_copy(output, tmp_path)] if begin == 0 or COPIES_LATE_TRACKS else []
    for path in (output, *copies):
        with av.open(str(path)) as container:
            assert container.streams.audio[0].codec_context.name == "flac"
        copied, copied_begin = samples_of(path)
        assert copied.shape == heard.shape and abs(copied - heard).max() <= 1
        assert abs(copied_begin - begin) <= 1e-3


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_u8"])
def test_sound_begins_to_the_sample(tmp_path, codec):
    """Also where frames, which count the file's time, come only 25 times a second."""
    source = clips.make_clip(tmp_path, "h264_avi", frames=30, sounds=[codec])
    segments = translate(source, tmp_path / "work", 0.48)
    output = tmp_path / f"out{container_for(source)}"
    assemble(segments, output, audio_from=source, start=0.48)
    first = next(time for time, _ in clips.sound_of(source) if time >= Fraction(48, 100))
    assert 0 < first - Fraction(48, 100) < Fraction(1, 25)
    assert abs(clips.sound_of(output)[0][0] - (first - Fraction(48, 100))) <= Fraction(1, 48_000)


def test_a_hole_in_converted_sound_stays(tmp_path):
    """What follows is in time; FLAC's block that spans the hole ends early."""
    whole = clips.make_clip(tmp_path, "h264_mkv", frames=50, sounds=["pcm_u8"], name="whole")
    source = tmp_path / "hole.mkv"
    with av.open(str(whole)) as old, av.open(str(source), "w") as new:
        streams = {s: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        for packet in old.demux():
            lost = packet.stream.type == "audio" and 400 <= (packet.pts or 0) < 1200
            if packet.dts is not None and not lost:
                packet.stream = streams[packet.stream]
                new.mux(packet)
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
    loud, tone = np.zeros(2 * clips.SOUND_RATE, bool), clips.SOUND_RATE
    with av.open(str(output)) as container:
        for frame in container.decode(audio=0):
            begin = round(frame.time * tone)
            loud[begin : begin + frame.samples] = True
    assert loud[: int(0.4 * tone)].all() and loud[int(1.32 * tone) : int(1.99 * tone)].all()
    assert not loud[int(0.52 * tone) : int(1.2 * tone)].any()


def test_damage_in_converted_sound_costs_that_sound_only(tmp_path, caplog):
    source = clips.make_clip(tmp_path, "h264_avi", frames=50, sounds=["adpcm_ima_wav"])
    whole, _ = samples_of(source)
    data, packets = bytearray(source.read_bytes()), clips.sound_of(source)
    for _, packet in packets[5:7]:
        at = data.index(packet)
        data[at : at + len(packet)] = b"\xff" * len(packet)
    source.write_bytes(data)
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
    heard, _ = samples_of(output)
    lost = 2 * len(whole) // len(packets)
    assert abs(len(whole) - lost - len(heard)) < 100
    # What comes after the hole is the same, and said once.
    assert (heard[-20_000:] == whole[-20_000:]).all()
    assert [r.message for r in caplog.records if "cannot be decoded" in r.message] == [
        "Sound that cannot be decoded is left out (Invalid data found when processing input)."
    ]


def test_all_sounds_are_copied(tmp_path):
    source = clips.make_clip(tmp_path, sounds=["aac", "libmp3lame"], frames=20)
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / "out.mp4", audio_from=clips.in_memory(source))
    for stream in (0, 1):
        assert clips.sound_of(output, stream) == clips.sound_of(source, stream)


@pytest.mark.parametrize(
    ("sounds", "suffix", "copied"),
    [
        (["flac", "pcm_s16le"], ".mp4", ["flac", "pcm_s16le"]),
        (["aac", "pcm_s16le"], ".mov", ["aac", "pcm_s16le"]),
        (["aac", "wavpack"], ".mp4", ["aac", "flac"]),
        (["pcm_u8", "pcm_s16le"], ".mp4", ["flac", "pcm_s16le"]),
    ],
)
def test_mixtures_fit_into_one_file(tmp_path, sounds, suffix, copied):
    source = clips.make_clip(tmp_path, "h264_mkv", sounds=sounds, layout="stereo")
    assert container_for(source) == suffix
    output = assemble(
        translate(source, tmp_path / "work"), tmp_path / f"out{suffix}", audio_from=source
    )
    for path in (output, host_copy(output, tmp_path)):
        with av.open(str(path)) as container:
            found = [stream.codec_context.name for stream in container.streams.audio]
        assert found == copied
        for stream, (before, after) in enumerate(zip(sounds, copied, strict=True)):
            if before == after:
                data = [b"".join(d for _, d in clips.sound_of(p, stream)) for p in (source, path)]
                assert data[0] == data[1]


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


@pytest.mark.parametrize("rate", [0.1, 12.5, 23.976, 30_000 / 1001, 1000.0])
def test_pictures_keep_any_frame_rate(tmp_path, rate):
    source = clips.make_pictures(tmp_path)
    segments = translate(source, tmp_path / "work", frame_rate=rate)
    output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
    frames = decoded(output)
    assert numbers(frames) == list(range(12))
    exact = Fraction(rate).limit_denominator(100_000)
    assert [frame.time for frame in frames] == [number / exact for number in range(12)]
    with open_video(host_copy(output, tmp_path)) as reader:
        assert reader.info.frame_rate == pytest.approx(rate, rel=1e-4)


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
    first = 5 if COPIES_LATE_TRACKS else 0
    ticks = list(range(first, first + 12))
    source = clips.make_clip(tmp_path, "h264_mkv", sounds=[codec], ticks=ticks)
    segments = translate(source, tmp_path / "work", settings=settings)
    output = assemble(segments, tmp_path / "out.mp4", audio_from=source)
    with av.open(str(output)) as container:
        assert container.streams.video[0].codec.name == "h264"
    saved = host_copy(output, tmp_path)
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


def test_a_container_that_takes_the_sound_keeps_it(tmp_path):
    source = clips.make_clip(tmp_path, "h264_mkv", sounds=["wavpack"])
    segments = translate(source, tmp_path / "work")
    output = assemble(segments, tmp_path / "out.mkv", audio_from=source)
    assert [d for _, d in clips.sound_of(output)] == [d for _, d in clips.sound_of(source)]


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
