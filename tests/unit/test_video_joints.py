"""Files whose time stamps jump: all frames and all sound, in time, and a warning with the place."""

from fractions import Fraction

import av
import clips
import numpy as np
import pytest

from live2diff_core.video.encoder import Encoding
from live2diff_core.video.joints import AHEAD, BACK, find_joints
from live2diff_core.video.reader import open_video
from live2diff_core.video.segments import assemble
from live2diff_core.video.sound import container_for
from live2diff_core.video.writer import SegmentWriter

FRAME = Fraction(1, 25)
# A packet of sound; the encoder of AAC adds one at the beginning, and fills up the last one.
PACKET = 1152 / clips.SOUND_RATE
# Kind of video, options of the clip, encoder of the sound.
KINDS = [
    ("h264_ts", {}, "aac"),
    ("h264_ts", {}, "mp2"),
    ("h264_b", {"suffix": ".ts"}, "aac"),
    ("mpeg2_ts", {}, "mp2"),
    ("mpeg2_ts", {"suffix": ".mpg"}, "mp2"),
]
every_kind = pytest.mark.parametrize(("kind", "options", "sound"), KINDS)


def read(source, *args):
    with open_video(source, *args) as reader:
        return list(reader), reader


def numbers(frames):
    return [clips.number_of(frame.image) for frame in frames]


def part(folder, number, kind="h264_ts", sound="aac", frames=30, start=0, **options):
    """A clip whose pictures count from 100 * number on, with a tone of its own."""
    images = [clips.picture(100 * number + index) for index in range(frames)]
    return clips.make_clip(
        folder,
        kind,
        ticks=range(start, start + frames),
        images=images,
        sounds=[sound] if sound else [],
        sound_seconds=frames / 25,
        pitch=PITCHES[number],
        name=f"part{number}_{start}",
        **options,
    )


PITCHES = (400, 900, 1600, 2500)


def translated(source, folder, start=0.0, duration=0.0):
    """Copy a video through segments, as Stream Video does without a model; the path."""
    with open_video(source, start, duration) as reader:
        info = reader.info
        with SegmentWriter(
            folder / "work",
            Encoding("h264", 18),
            info.width,
            info.height,
            info.time_base,
            frame_rate=info.frame_rate,
        ) as writer:
            for frame in reader:
                writer.write(frame.image, frame.time, frame.duration)
            writer.commit()
        segments = writer.segments
    output = folder / f"out{container_for(source)}"
    return assemble(segments, output, audio_from=source, start=start, duration=duration)


def heard(path):
    """Decoded sound: float [samples] from second 0 on, silence where there is none."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    sound = np.zeros(round((float(frames[-1].time) + 1) * clips.SOUND_RATE))
    for frame in frames:
        begin = max(0, round(float(frame.time) * clips.SOUND_RATE))
        samples = frame.to_ndarray()[0].astype(float)
        sound[begin : begin + len(samples)] = samples
    return sound / abs(sound).max(), sum(frame.samples for frame in frames)


def pitch(sound, second, length=0.1):
    """The loudest of the parts' pitches around a moment; 0 in silence."""
    at = round(second * clips.SOUND_RATE)
    piece = sound[at : at + round(length * clips.SOUND_RATE)]
    if abs(piece).max(initial=0) < 0.05:
        return 0
    loud = abs(np.fft.rfft(piece * np.hanning(len(piece))))
    loudest = loud.argmax() * clips.SOUND_RATE / len(piece)
    return min(PITCHES, key=lambda tone: abs(tone - loudest))


def steps_of(frames):
    return [b.time - a.time for a, b in zip(frames, frames[1:], strict=False)]


@every_kind
def test_a_joined_file_has_all_frames_and_its_true_length(tmp_path, kind, options, sound):
    one, two = (part(tmp_path, number, kind, sound, **options) for number in range(2))
    frames, reader = read(clips.join(one, two))
    shown = numbers(frames)
    assert shown == [*range(30), *range(100, 130)]
    steps = steps_of(frames)
    # Where the parts meet, a picture stays until the sound of the first one has ended.
    assert FRAME <= steps.pop(29) < FRAME + 4 * Fraction(PACKET)
    assert set(steps) == {FRAME}
    assert abs(float(frames[-1].time + frames[-1].duration) - 60 / 25) < 4 * PACKET
    (warning,) = reader.warnings
    assert warning.message == BACK and warning.frame == 30 and warning.time == frames[30].time


@every_kind
def test_sound_changes_with_the_pictures(tmp_path, kind, options, sound):
    paths = [part(tmp_path, number, kind, sound, **options) for number in range(3)]
    output = translated(clips.join(*paths), tmp_path)
    frames, _ = read(output)
    assert numbers(frames) == [100 * number + index for number in range(3) for index in range(30)]
    wave, samples = heard(output)
    alone = sum(heard(path)[1] for path in paths)
    assert abs(samples - alone) <= 2 * 1152
    for number, frame in ((n // 100, f) for n, f in zip(numbers(frames), frames, strict=True)):
        begin = frames[30 * number].time
        # From a few packets behind a joint to as many before the next.
        if Fraction(8, 100) <= frame.time - begin <= 29 * FRAME - Fraction(16, 100):
            assert pitch(wave, float(frame.time)) == PITCHES[number], float(frame.time)
    changes = [t / 100 for t in range(360) if pitch(wave, t / 100) != pitch(wave, (t - 1) / 100)]
    for joint in (30, 60):
        near = [t for t in changes if abs(t + 0.05 - float(frames[joint].time)) < 0.07]
        assert near, (changes, float(frames[joint].time))


def test_a_file_joined_to_itself_is_twice_as_long(tmp_path):
    """The issue's own case."""
    one = part(tmp_path, 0, frames=50)
    output = translated(clips.join(one, one), tmp_path)
    frames, _ = read(output)
    assert numbers(frames) == [*range(50), *range(50)]
    with av.open(str(output)) as container:
        lengths = [float(s.duration * s.time_base) for s in container.streams]
    np.testing.assert_allclose(lengths, 4.0, atol=0.1)


def test_many_short_parts(tmp_path):
    """Their stamps are all alike, and none is far from those of another part."""
    parts = [part(tmp_path, number % 4, frames=5) for number in range(4)]
    frames, reader = read(clips.join(*parts, *parts))
    assert numbers(frames) == [100 * n + index for n in (0, 1, 2, 3) * 2 for index in range(5)]
    assert all(FRAME <= step <= 4 * FRAME for step in steps_of(frames))
    assert [w.frame for w in reader.warnings] == [5 * n for n in range(1, 8)]


@pytest.mark.parametrize("sound", ["aac", None])
@pytest.mark.parametrize("hours", [1, 20])
def test_a_jump_ahead_is_no_gap(tmp_path, sound, hours):
    one = part(tmp_path, 0, sound=None)
    late = part(tmp_path, 1, sound=None, start=hours * 3600 * 25)
    if sound:
        one = part(tmp_path, 0)
        late = shifted(part(tmp_path, 1), hours * 3600)
    frames, reader = read(clips.join(one, late))
    assert numbers(frames) == [*range(30), *range(100, 130)]
    assert all(FRAME <= step < 4 * FRAME for step in steps_of(frames))
    assert [w.message for w in reader.warnings] == [AHEAD]


def shifted(path, seconds, name="shifted"):
    """Copy an MPEG-TS with all stamps later."""
    moved = path.with_name(name + path.suffix)
    with av.open(str(path)) as old, av.open(str(moved), "w", format="mpegts") as new:
        streams = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                ticks = round(seconds / packet.time_base)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return moved


def test_a_gap_of_seconds_stays(tmp_path):
    """Nothing was sent for a while: that is no other clock."""
    one, two = part(tmp_path, 0), shifted(part(tmp_path, 1), 6)
    frames, reader = read(clips.join(one, two))
    assert numbers(frames) == [*range(30), *range(100, 130)]
    assert abs(float(frames[30].time) - 6) < 0.1
    assert not [w for w in reader.warnings if w.message in (BACK, AHEAD)]


@pytest.mark.parametrize("sound", ["aac", None])
def test_a_clock_that_runs_over(tmp_path, sound):
    """MPEG-TS counts to 2^33 ticks, which is 26.5 hours."""
    before = 2**33 / 90_000 - 0.6
    path = shifted(part(tmp_path, 0, sound=sound), before)
    frames, reader = read(path)
    assert numbers(frames) == list(range(30))
    assert set(steps_of(frames)) == {FRAME} and not reader.warnings
    joined = clips.join(path, part(tmp_path, 1, sound=sound))
    frames, reader = read(joined)
    assert numbers(frames) == [*range(30), *range(100, 130)]
    assert all(FRAME <= step < 4 * FRAME for step in steps_of(frames))


def test_sound_whose_first_packet_is_before_zero(tmp_path, caplog):
    """The encoder's delay: where sound begins late in the file, FFmpeg leaves it at 2^33."""
    path = clips.make_clip(tmp_path, "h264_ts", frames=500, sounds=["aac"], ticks=range(500))
    with av.open(str(path)) as container:
        joints = find_joints(path, container, container.streams.video[0])
        assert joints.runs == {0: ((0, 0),), 1: ((0, -(2**33)), (1, 0))} and not joints.places
        first = next(p for p in container.demux(audio=0))
        joints.shifter()(first)
        assert -0.1 < first.pts / 90_000 < 0
    # So late that FFmpeg knows too little of it, and that costs the video nothing else.
    output = translated(path, tmp_path)
    assert len(read(output)[0]) == 500
    assert "audio stream is left out, since its kind is unknown" in caplog.text


@pytest.mark.parametrize("at", [1, 29, 30, 31, 59])
def test_skipping_over_a_joint_goes_on_with_the_same_frames(tmp_path, at):
    joined = clips.join(part(tmp_path, 0), part(tmp_path, 1))
    everything = read(joined)[0]
    with open_video(joined) as reader:
        reader.skip(at)
        rest = list(reader)
    assert len(rest) == 60 - at
    for one, other in zip(rest, everything[at:], strict=True):
        assert (one.index, one.time, one.duration) == (other.index, other.time, other.duration)
        assert np.array_equal(one.image, other.image)


@pytest.mark.parametrize(("start", "duration"), [(0.4, 0.4), (0.8, 1.0), (1.6, 0.4), (1.6, 0.0)])
def test_a_window_counts_on_the_joined_clock(tmp_path, start, duration):
    joined = clips.join(part(tmp_path, 0), part(tmp_path, 1))
    everything = read(joined)[0]
    frames, _ = read(joined, start, duration)
    stop = start + duration if duration else 99
    inside = [f for f in everything if start - 1e-4 <= f.time < stop - 1e-4]
    assert numbers(frames) == numbers(inside) and frames
    for one, other in zip(frames, inside, strict=True):
        assert abs(float(other.time - one.time) - start) < 1e-4
        assert np.array_equal(one.image, other.image)
    output = translated(joined, tmp_path, start, duration)
    wave, _ = heard(output)
    for frame in frames[3:-5]:
        near = abs(float(frame.time) + start - float(everything[30].time)) < 0.15
        assert (
            near or pitch(wave, float(frame.time)) == PITCHES[clips.number_of(frame.image) // 100]
        )


def test_a_few_wrong_stamps_are_no_joint(tmp_path):
    """One frame's stamps are hours ahead: it is shown in its place, and all others keep theirs."""
    source = part(tmp_path, 0, frames=60)
    wrong = source.with_name("wrong.ts")
    with av.open(str(source)) as old, av.open(str(wrong), "w", format="mpegts") as new:
        streams = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    data = bytearray(wrong.read_bytes())
    at = [n for n in range(0, len(data), 188) if _pes(data, n)]
    # The bits of the 33-bit stamp from 2^30 on, in the 20th picture.
    data[_pes(data, at[20])] ^= 0x0E
    wrong.write_bytes(data)
    frames, reader = read(wrong)
    assert numbers(frames) == list(range(60))
    times = [float(frame.time) for frame in frames]
    right = [float(frame.time) for frame in read(source)[0]]
    np.testing.assert_allclose(times, right, atol=0.05)
    assert 1 <= len(reader.warnings) <= 2


def _pes(data, at):
    """Place of the first byte of the stamp in a packet that begins a picture; 0 in others."""
    if not data[at + 1] & 0x40:
        return 0
    body = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
    return body + 9 if data[body : body + 4] == b"\0\0\1\xe0" else 0


def test_other_formats_are_not_read_twice(tmp_path, monkeypatch):
    from live2diff_core.video import joints

    monkeypatch.setattr(joints, "open_container", None)
    for kind in ("h264", "h264_mkv", "h264_avi"):
        assert len(read(clips.make_clip(tmp_path, kind))[0]) == 12


def test_a_size_that_changes_is_said(tmp_path):
    """In mid-stream: both sizes, and what is done about it."""
    one = part(tmp_path, 0)
    images = [clips.picture(100 + index, (96, 96)) for index in range(30)]
    two = clips.make_clip(
        tmp_path, "h264_ts", images=images, ticks=range(30), sounds=["aac"], name="large"
    )
    frames, reader = read(clips.join(one, two, one))
    assert numbers(frames) == [*range(30), *range(100, 130), *range(30)]
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    said = [str(w) for w in reader.warnings if "size" in w.message]
    assert "from 64x48 to 96x96" in said[0] and "scaled to 64x48 (at frame 30" in said[0]
    assert "from 96x96 to 64x48" in said[1] and "at frame 60" in said[1]


def test_a_size_is_said_where_the_stamps_do_not_jump(tmp_path):
    one = part(tmp_path, 0, sound=None)
    images = [clips.picture(100 + index, (96, 96)) for index in range(30)]
    two = clips.make_clip(tmp_path, "h264_ts", images=images, ticks=range(31, 61), name="large")
    warnings = read(clips.join(one, two))[1].warnings
    assert "size changes from 64x48 to 96x96" in warnings[-1].message
    assert not [w for w in warnings if w.message in (BACK, AHEAD)]
