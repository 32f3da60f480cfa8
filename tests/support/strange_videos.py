"""Files that call themselves videos, made by functions of the folder that they are put into.

`STRANGE` has for each name a function that returns its file's path; a FFmpeg without an encoder
raises MissingEncoderError. What they hold is asked of FFmpeg itself: `frames_that_decode`.
"""

import os
import random
import struct
import zipfile
from fractions import Fraction
from functools import partial

import av
import clips
import numpy as np
from PIL import Image

FRAMES = 6
STRANGE = {}


class MissingEncoderError(Exception):
    """This FFmpeg cannot make such a file."""


def frames_that_decode(path):
    """Count the frames of a file's first video that FFmpeg decodes; 0 if it is no video."""
    if path.read_bytes()[8:12] == b"WEBP":
        try:
            with Image.open(path) as image:
                return image.n_frames
        except OSError:
            return 0
    try:
        with av.open(str(path)) as container:
            return _count(container)
    except (av.error.FFmpegError, ValueError):
        return 0


def _count(container):
    cover = av.stream.Disposition.attached_pic
    streams = [each for each in container.streams.video if not each.disposition & cover]
    if not streams or streams[0].codec_context is None:
        return 0
    streams[0].thread_type, count = "SLICE", 0
    packets = container.demux(streams[0])
    for _ in range(10_000):
        try:
            packet = next(packets)
        except StopIteration:
            break
        except av.error.FFmpegError:
            # As after the end, the decoder gives out what it holds.
            count += len(streams[0].decode(None))
            break
        try:
            count += len(streams[0].decode(packet))
        except av.error.FFmpegError:
            continue
    return count


def strange(name):
    """Decorate a function (folder, name) that makes a file."""

    def add(make):
        STRANGE[name] = partial(make, name=name.replace(" ", "_"))
        return make

    return add


def encode(
    folder,
    name,
    suffix,
    encoder,
    pixels,
    size=(64, 48),
    *,
    frames=FRAMES,
    ticks=None,
    time_base=Fraction(1, 25),
    options=None,
    set_up=lambda context: None,
    container_options=None,
):
    """Write a video with any encoder, and return its path."""
    path = folder / (name + suffix)
    try:
        output = av.open(str(path), "w", container_options=container_options or {})
        stream = output.add_stream(encoder, rate=25, options=options or {})
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        raise MissingEncoderError(f"{encoder} {suffix}: {error}") from error
    stream.width, stream.height = size
    stream.pix_fmt = pixels
    stream.codec_context.time_base = time_base
    set_up(stream.codec_context)
    generator = np.random.default_rng(len(name))
    ticks = range(frames) if ticks is None else ticks
    with output:
        for number, tick in enumerate(ticks):
            image = clips.picture(number, size)
            image = image + generator.integers(0, 9, image.shape, dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = tick, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


# Kinds of video

for kind in clips.KINDS:
    STRANGE[f"kind {kind}"] = partial(
        lambda folder, kind: clips.make_clip(folder, kind, frames=FRAMES, name=f"kind_{kind}"),
        kind=kind,
    )
ENCODED = {
    "vp8": (".webm", "libvpx", "yuv420p"),
    "vp9 alpha": (".webm", "libvpx-vp9", "yuva420p"),
    "av1": (".mkv", "libsvtav1", "yuv420p", (64, 64)),
    "av1 mp4 10 bit": (".mp4", "libsvtav1", "yuv420p10le", (64, 64)),
    "ffv1": (".mkv", "ffv1", "yuv420p"),
    "ffv1 gray": (".mkv", "ffv1", "gray"),
    "ffv1 16 bit gray": (".mkv", "ffv1", "gray16le"),
    "ffv1 alpha": (".mkv", "ffv1", "bgra"),
    "h264 gray": (".mp4", "libx264", "gray"),
    "h264 10 bit": (".mp4", "libx264", "yuv420p10le"),
    "h264 4.2.2": (".mov", "libx264", "yuv422p"),
    "h264 raw": (".h264", "libx264", "yuv420p"),
    "h264 flv": (".flv", "libx264", "yuv420p"),
    "hevc raw": (".hevc", "libx265", "yuv420p"),
    "hevc 12 bit 4.4.4": (".mkv", "libx265", "yuv444p12le"),
    "mpeg2": (".mpg", "mpeg2video", "yuv420p"),
    "mpeg2 raw": (".m2v", "mpeg2video", "yuv420p"),
    "mpeg2 transport": (".ts", "mpeg2video", "yuv420p"),
    "mpeg1": (".mpg", "mpeg1video", "yuv420p"),
    "mpeg4": (".mp4", "mpeg4", "yuv420p"),
    "mpeg4 avi": (".avi", "mpeg4", "yuv420p"),
    "msmpeg4": (".avi", "msmpeg4", "yuv420p"),
    "wmv": (".wmv", "wmv2", "yuv420p"),
    "wmv1 asf": (".asf", "wmv1", "yuv420p"),
    "flv1": (".flv", "flv", "yuv420p"),
    "dv": (".dv", "dvvideo", "yuv420p", (720, 576)),
    "dv avi": (".avi", "dvvideo", "yuv411p", (720, 480)),
    "huffyuv": (".avi", "huffyuv", "yuv422p"),
    "ffvhuff": (".avi", "ffvhuff", "rgb24"),
    "utvideo": (".avi", "utvideo", "gbrp"),
    "magicyuv": (".avi", "magicyuv", "gbrap"),
    "uncompressed": (".avi", "rawvideo", "bgr24"),
    "uncompressed nut": (".nut", "rawvideo", "yuv420p"),
    "uncompressed palette": (".nut", "rawvideo", "rgb8"),
    "y4m": (".y4m", "wrapped_avframe", "yuv420p"),
    "apng": (".apng", "apng", "rgba"),
    "apng gray": (".apng", "apng", "gray"),
    "png palette gif": (".gif", "gif", "bgr8"),
    "png mov": (".mov", "png", "rgba"),
    "png 16 bit": (".mov", "png", "rgb48be"),
    "animation": (".mov", "qtrle", "argb"),
    "cinepak": (".avi", "cinepak", "rgb24"),
    "h263 phone": (".3gp", "h263", "yuv420p", (176, 144)),
    "mjpeg avi": (".avi", "mjpeg", "yuvj422p"),
    "prores 4.4.4": (".mov", "prores_ks", "yuv444p10le"),
    "jpeg2000": (".mov", "jpeg2000", "rgb24"),
    "snow": (".avi", "snow", "yuv420p"),
    "svq1": (".mov", "svq1", "yuv410p"),
    "zlib": (".avi", "zlib", "bgr24"),
    "flash screen": (".flv", "flashsv", "bgr24"),
    "cineform": (".mov", "cfhd", "yuv422p10le", (128, 96)),
    "v210": (".mov", "v210", "yuv422p10le", (96, 48)),
    "monochrome": (".nut", "rawvideo", "monob"),
    "floats": (".nut", "rawvideo", "gbrpf32le"),
    "1x1": (".mkv", "ffv1", "bgra", (1, 1)),
    "2x2": (".mp4", "libx264", "yuv420p", (2, 2)),
    "1 high": (".mkv", "ffv1", "bgra", (65, 1)),
    "1 wide": (".nut", "rawvideo", "rgb24", (1, 65)),
    "odd": (".mkv", "ffv1", "yuv420p", (67, 45)),
    "odd gif": (".gif", "gif", "rgb8", (7, 5)),
    "very wide": (".mp4", "libx264", "yuv420p", (4096, 16)),
    "very high": (".mp4", "libx264", "yuv420p", (16, 2048)),
}
for title, (suffix, encoder, pixels, *size) in ENCODED.items():
    STRANGE[title] = partial(
        encode,
        name=title.replace(" ", "_"),
        suffix=suffix,
        encoder=encoder,
        pixels=pixels,
        size=size[0] if size else (64, 48),
    )
# What an encoder is asked for, and how the file is written.
CODED = {
    "open gop": {"options": {"x264-params": "open-gop=1:keyint=3:bframes=2"}, "frames": 12},
    "many b-frames": {"options": {"x264-params": "bframes=8:b-pyramid=strict"}, "frames": 14},
    "no keyframe again": {"options": {"x264-params": "intra-refresh=1"}},
    "interlaced": {"options": {"x264-params": "tff=1"}},
    "interlaced below": {"options": {"x264-params": "bff=1"}},
    "one frame": {"frames": 1},
    "fragments": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "index first": {"container_options": {"movflags": "faststart"}},
    "variable rate": {"ticks": [0, 1, 2, 50, 51, 300]},
    "starts late": {"ticks": range(1000, 1006)},
    "starts before zero": {"ticks": range(-30, -24)},
    "huge times": {"ticks": [(1 << 40) + tick for tick in range(6)]},
    "one long gap": {"ticks": [0, 1, 2, 25 * 86400, 25 * 86400 + 1]},
    "microseconds": {"ticks": [0, 1, 3, 4, 1000, 1001], "time_base": Fraction(1, 1_000_000)},
}
for title, coded in CODED.items():
    STRANGE[title] = partial(
        encode,
        name=title.replace(" ", "_"),
        suffix=".mp4",
        encoder="libx264",
        pixels="yuv420p",
        **coded,
    )
for title in ("variable rate", "starts before zero", "huge times"):
    for suffix in (".mkv", ".ts", ".nut"):
        STRANGE[title + suffix] = partial(
            STRANGE[title].func, **{**STRANGE[title].keywords, "suffix": suffix}
        )


def _aspect(folder, name, aspect):
    def set_up(context):
        context.sample_aspect_ratio = aspect

    return encode(folder, name, ".mp4", "libx264", "yuv420p", set_up=set_up)


for title, aspect in {
    "PAL": Fraction(16, 11),
    "NTSC": Fraction(10, 11),
    "pixels 250 wide": Fraction(250),
    "pixels 250 high": Fraction(1, 250),
}.items():
    STRANGE[title] = partial(_aspect, name=title.replace(" ", "_"), aspect=aspect)
for turns in (1, 2, 3):
    STRANGE[f"turned {turns}"] = partial(
        lambda folder, turns: clips.make_clip(
            folder, frames=FRAMES, turns=turns, name=f"turned_{turns}"
        ),
        turns=turns,
    )


@strange("webp")
def _webp(folder, name):
    return clips.make_webp(folder, frames=FRAMES, name=f"{name}.webp")


@strange("webp of one picture")
def _still_webp(folder, name):
    return clips.make_webp(folder, frames=1, name=f"{name}.webp")


@strange("palette png")
def _palette(folder, name):
    path = folder / f"{name}.png"
    images = [Image.fromarray(clips.picture(n)).quantize(8) for n in range(FRAMES)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    return path


@strange("one photo")
def _photo(folder, name):
    path = folder / f"{name}.jpg"
    Image.fromarray(clips.picture(5)).save(path)
    return path


# Streams beside the first video


@strange("sound only")
def _sound(folder, name):
    return clips.make_sound(folder, f"{name}.m4a")


@strange("seven streams")
def _seven(folder, name):
    return clips.make_clip(
        folder, "h264_mkv", frames=FRAMES, sounds=("aac", "mp3", "flac", "opus", "ac3"), name=name
    )


def _copied(source, path, change, **options):
    """Copy all packets into another file; `change` gets (output, streams) before."""
    with av.open(str(source)) as old, av.open(str(path), "w", **options) as new:
        streams = {s.index: new.add_stream_from_template(s, opaque=True) for s in old.streams}
        change(new, streams)
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return path


@strange("two videos")
def _two(folder, name):
    first = clips.make_clip(folder, frames=FRAMES, name="one")
    path = folder / f"{name}.mkv"

    def more(new, streams):
        second = new.add_stream("libx264", rate=25)
        second.width, second.height, second.pix_fmt = 32, 32, "yuv420p"
        image = clips.picture(3, (32, 32))
        for tick in range(3):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts = tick
            new.mux(second.encode(frame))
        new.mux(second.encode(None))

    return _copied(first, path, more)


@strange("cover and sound")
def _cover(folder, name):
    plain = clips.make_clip(folder, "mjpeg", frames=1, sounds=["aac"], name="plain")

    def cover(new, streams):
        streams[0].disposition = av.stream.Disposition.attached_pic.value

    return _copied(plain, folder / f"{name}.mp4", cover)


@strange("data stream")
def _data(folder, name):
    plain = clips.make_clip(folder, "h264_ts", frames=FRAMES, name="plain_data")
    return _copied(plain, folder / f"{name}.mkv", lambda new, _: _attach(new))


def _attach(container):
    attach = getattr(container, "add_attachment", None)
    if attach is None:
        raise MissingEncoderError("attachments")
    attach("notes.txt", "text/plain", b"hello")


@strange("subtitles")
def _subtitles(folder, name):
    """Subtitles alone: a kind of stream that is no video."""
    path = folder / f"{name}.srt"
    path.write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    return path


# Joined, cut and damaged


@strange("size changes")
def _size_changes(folder, name):
    parts = [
        encode(folder, f"part{n}", ".h264", "libx264", "yuv420p", size)
        for n, size in enumerate([(64, 48), (96, 80), (64, 48)])
    ]
    path = folder / f"{name}.h264"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@strange("joined transport streams")
def _joined(folder, name):
    part = clips.make_clip(folder, "h264_ts", frames=FRAMES, name="joined_part")
    path = folder / f"{name}.ts"
    path.write_bytes(part.read_bytes() * 3)
    return path


@strange("garbage behind")
def _behind(folder, name):
    path = clips.make_clip(folder, frames=FRAMES, name=name)
    path.write_bytes(path.read_bytes() + random.Random(1).randbytes(5000))
    return path


@strange("garbage before")
def _before(folder, name):
    path = clips.make_clip(folder, "h264_ts", frames=FRAMES, name=name)
    path.write_bytes(random.Random(1).randbytes(777) + path.read_bytes())
    return path


@strange("broken packets")
def _broken(folder, name):
    return clips.damage(clips.make_clip(folder, frames=20, gop=5, name="whole"), {3, 8, 9}, name)


@strange("packets of zeros")
def _zero_packets(folder, name):
    path = clips.make_clip(folder, "h264_mkv", frames=12, name=name)
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0)][4:7]
    for packet in packets:
        at = data.index(packet)
        data[at : at + len(packet)] = bytes(len(packet))
    path.write_bytes(data)
    return path


@strange("empty packets")
def _empty_packets(folder, name):
    """Packets without a byte, as AVI has them where a frame was dropped."""
    path = folder / f"{name}.avi"
    plain = clips.make_clip(folder, "h264_avi", frames=12, gop=1, name="plain_avi")
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for number, packet in enumerate(old.demux(video=0)):
            if packet.dts is None:
                continue
            if number in (3, 4, 8):
                empty = av.Packet(b"")
                empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                packet = empty
            packet.stream = stream
            new.mux(packet)
    return path


@strange("pictures of nothing")
def _zeroed(folder, name):
    """The index is there, all data is zero."""
    path = clips.make_clip(folder, frames=FRAMES, name=name)
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat") + 4
    size = struct.unpack(">I", data[at - 8 : at - 4])[0] - 8
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    return path


def _cut(folder, kind, part, name):
    whole = clips.make_clip(folder, kind, frames=20, gop=5, name=f"{name}_whole")
    if kind == "h264_first":
        whole = clips.index_first(whole)
    return clips.cut(whole, part, name)


for kind in ("h264", "h264_mkv", "h264_ts", "h264_avi", "vp9", "gif"):
    for part in (0.02, 0.4, 0.95):
        title = f"{kind} cut at {part:g}"
        STRANGE[title] = partial(_cut, kind=kind, part=part, name=title.replace(" ", "_"))


def _flipped(folder, kind, seed, name):
    path = clips.make_clip(folder, kind, frames=20, gop=5, name=name)
    generator, data = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(30):
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)
    return path


for kind in ("h264", "h264_mkv", "h264_ts", "h264_avi", "vp9", "gif", "mjpeg"):
    for seed in range(2):
        title = f"{kind} flipped {seed}"
        STRANGE[title] = partial(_flipped, kind=kind, seed=seed, name=title.replace(" ", "_"))

# What is no video


def _bytes(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


for title, data in {
    "empty.mp4": b"",
    "one byte.mkv": b"\x1a",
    "zeros.mp4": bytes(10_000),
    "ones.avi": b"\xff" * 10_000,
    "text.txt": b"Hello\n" * 300,
    "text.mp4": b"Hello\n" * 300,
    "page.webm": b"<!DOCTYPE html><html><body>404</body></html>",
    "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nclip.ts\n",
    "list.mp4": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    "concat.mp4": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    "session.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\n",
    "header.mp4": b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
    "riff.avi": b"RIFF\xff\xff\xff\xffAVI LIST",
    "riff.webp": b"RIFF\x20\0\0\0WEBPVP8X" + bytes(20),
    "gif.gif": b"GIF89a\x01\0\x01\0\x80\0\0" + bytes(6),
    "ebml.mkv": b"\x1a\x45\xdf\xa3" + bytes(100),
    **{
        f"noise{s}{suffix}": random.Random(s).randbytes(6000)
        for s in (0, 1)
        for suffix in (".mp4", ".mkv", ".ts", ".gif", ".h264")
    },
}.items():
    STRANGE[title] = partial(_bytes, name=title, data=data)


@strange("archive")
def _archive(folder, name):
    path = folder / f"{name}.mp4"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clip.mp4", b"x" * 1000)
    return path


@strange("folder")
def _folder(folder, name):
    path = folder / f"{name}.mp4"
    path.mkdir()
    return path


@strange("loop")
def _loop(folder, name):
    path = folder / f"{name}.mp4"
    path.symlink_to(path)
    return path


@strange("pipe")
def _pipe(folder, name):
    path = folder / f"{name}.mp4"
    os.mkfifo(path)
    return path


# Names

for name in (
    "new\nline",
    "emoji 🎬",
    "x" * 230,
    "clip_%04d",
    "%s%n%d",
    "-i",
    "--help",
    "a'b\"c",
    "a*b?[c]",
    "trailing .",
    " leading",
    "tab\tbell\a",
    "file:a",
    "http:",
    "concat:a|b",
    "back\\slash",
    "קובץ",
    "e\u0301",
    "nonutf-\udcff\udcfe",
    "{braces}",
    "$(touch hacked)",
    "a;b&c",
    "CON",
    "clip [output]x",
):
    STRANGE[f"name {ascii(name)[:20]}"] = partial(
        lambda folder, name: clips.make_clip(folder, frames=FRAMES, name="plain_name").rename(
            folder / f"{name}.mp4"
        ),
        name=name,
    )
