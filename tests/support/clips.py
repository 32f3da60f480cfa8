"""Small test videos. Every frame shows its own number, so that it is known again after coding."""

import struct
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from PIL import Image

COLUMNS, ROWS = 4, 3
DARK, BRIGHT = 40, 216
SIZE = (64, 48)
SOUND_RATE = 48_000


def picture(number, size=SIZE):
    """uint8 [H, W, 3] that shows `number` as 4x3 blocks, bright for ones, on a tint of its own."""
    width, height = size
    tint = np.array([(number * 29) % 24, (number * 53) % 24, (number * 97) % 24])
    image = np.empty((height, width, 3), np.uint8)
    for bit in range(COLUMNS * ROWS):
        top, left, bottom, right = _block(bit, width, height)
        image[top:bottom, left:right] = (BRIGHT if number >> bit & 1 else DARK) + tint
    return image


def number_of(image):
    """Number that a picture shows, or -1 if it is no clear picture."""
    number = 0
    for bit in range(COLUMNS * ROWS):
        top, left, bottom, right = _block(bit, image.shape[1], image.shape[0])
        down, across = (bottom - top) // 4, (right - left) // 4
        level = image[top + down : bottom - down, left + across : right - across].mean()
        if not (DARK - 20 < level < DARK + 50 or BRIGHT - 30 < level):
            return -1
        number |= int(level > (DARK + BRIGHT) / 2) << bit
    return number


def _block(bit, width, height):
    row, column = divmod(bit, COLUMNS)
    return (
        height * row // ROWS,
        width * column // COLUMNS,
        height * (row + 1) // ROWS,
        width * (column + 1) // COLUMNS,
    )


# Per kind: suffix, encoder, pixel format, options.
KINDS = {
    "h264": (".mp4", "libx264", "yuv420p", {"crf": "12", "preset": "ultrafast"}),
    "h264_b": (".mp4", "libx264", "yuv420p", {"crf": "12", "preset": "veryfast", "bf": "3"}),
    "h264_mkv": (".mkv", "libx264", "yuv420p", {"crf": "12", "preset": "ultrafast"}),
    "h264_ts": (".ts", "libx264", "yuv420p", {"crf": "12", "preset": "ultrafast"}),
    "mpeg2_ts": (".ts", "mpeg2video", "yuv420p", {"b": "4M", "bf": "2"}),
    "h264_avi": (".avi", "libx264", "yuv420p", {"crf": "12", "preset": "ultrafast"}),
    "hevc": (".mp4", "libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=0"}),
    "hevc10": (
        ".mkv",
        "libx265",
        "yuv420p10le",
        {"preset": "ultrafast", "x265-params": "log-level=0"},
    ),
    "vp9": (".webm", "libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "prores": (".mov", "prores_ks", "yuv422p10le", {}),
    "prores4444": (".mov", "prores_ks", "yuva444p10le", {}),
    "mjpeg": (".mov", "mjpeg", "yuvj420p", {"q": "2"}),
    "gif": (".gif", "gif", "rgb8", {}),
    "h264_444": (".mp4", "libx264", "yuv444p", {"crf": "12", "preset": "ultrafast"}),
}


def make_clip(
    folder,
    kind="h264",
    *,
    frames=12,
    size=SIZE,
    ticks=None,
    time_base=Fraction(1, 25),
    sounds=(),
    sound_seconds=None,
    pitch=440,
    layout="mono",
    turns=0,
    gop=12,
    name="clip",
    images=None,
    suffix=None,
    sample_aspect_ratio=None,
):
    """Write a video, and return its path.

    Args:
        ticks: presentation time of every frame, in `time_base`; default 0, 1, 2, ...
        sounds: audio encoders, one stream each, a tone in each.
        pitch: Hertz of the first sound; the second one is twice as high, and so on.
        layout: of the channels of every sound.
        turns: quarter turns clockwise that a player has to make; mp4 only.
        images: instead of numbered pictures.
    """
    own_suffix, encoder, pixel_format, options = KINDS[kind]
    path = Path(folder) / (name + (suffix or own_suffix))
    ticks = list(range(frames)) if ticks is None else ticks
    images = [picture(number, size) for number in range(len(ticks))] if images is None else images
    # As a phone held sideways: the sensor's picture is stored, and how to turn it.
    images = [np.ascontiguousarray(np.rot90(image, turns)) for image in images]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25, options=options)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = time_base
        stream.time_base = time_base
        if sample_aspect_ratio:
            stream.codec_context.sample_aspect_ratio = sample_aspect_ratio
        # FFmpeg calls its own encoder of Vorbis experimental.
        options = {"strict": "experimental"}
        tones = [
            container.add_stream(
                codec, rate=SOUND_RATE, layout=layout, bit_rate=128_000, options=options
            )
            for codec in sounds
        ]
        for tick, image in zip(ticks, images, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = tick, time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        seconds = sound_seconds or float((ticks[-1] + 1) * time_base)
        for index, tone in enumerate(tones):
            _write_tone(container, tone, seconds, pitch * (index + 1))
    if turns:
        _set_rotation(path, turns)
    return path


def _write_tone(container, stream, seconds, pitch):
    context = stream.codec_context
    resampler = av.AudioResampler(
        format=context.format, layout=context.layout, rate=SOUND_RATE, frame_size=1024
    )
    moments = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    wave = (np.sin(2 * np.pi * pitch * moments) * 8000).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
    for part in [*resampler.resample(frame), *resampler.resample(None)]:
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def _set_rotation(path, turns):
    """Write the matrix for `turns` quarter turns clockwise into the track header."""
    matrices = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}
    a, b, c, d = (value << 16 for value in matrices[turns])
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd")
    # Version 1 has three fields of 8 bytes instead of 4; then 40 bytes up to the matrix.
    at += 4 + 40 + (12 if data[at + 4] else 0)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def make_lossless(folder, pictures, name="lossless.mkv"):
    """Write uint8 pictures [F, H, W, 3] so that they are read as they are, to the bit."""
    path = Path(folder, name)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=24, options={"qp": "0"})
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "rgb24"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path


def make_webp(folder, *, frames=6, size=SIZE, durations=40, name="clip.webp"):
    """Write an animated WebP without loss, and return its path."""
    path = Path(folder) / name
    images = [Image.fromarray(picture(number, size)) for number in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, lossless=True)
    return path


def make_pictures(folder, *, frames=12, size=SIZE, suffix=".png", pattern="shot_{}"):
    """Write numbered pictures into a new folder, and return it."""
    folder = Path(folder) / "pictures"
    folder.mkdir()
    for number in range(frames):
        path = folder / (pattern.format(number) + suffix)
        Image.fromarray(picture(number, size)).save(path, quality=95)
    return folder


def make_sound(folder, name="sound.m4a"):
    """Write a file with sound only."""
    path = Path(folder) / name
    with av.open(str(path), "w") as container:
        _write_tone(
            container, container.add_stream("aac", rate=SOUND_RATE, layout="mono"), 0.5, 440
        )
    return path


def join(*paths, name="joined"):
    """Append the bytes of files, as `cat` does."""
    joined = paths[0].with_name(name + paths[0].suffix)
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    return joined


def cut(path, part, name="cut"):
    """Copy the first `part` (0..1) of a file's bytes."""
    data = path.read_bytes()
    cut_path = path.with_name(name + path.suffix)
    cut_path.write_bytes(data[: int(len(data) * part)])
    return cut_path


def index_first(path):
    """Copy an mp4 with its index in front, as for the web, so that the end can be missing."""
    moved = path.with_name("web" + path.suffix)
    options = {"movflags": "faststart"}
    with av.open(str(path)) as old, av.open(str(moved), "w", options=options) as new:
        streams = {
            stream.index: new.add_stream_from_template(stream, opaque=True)
            for stream in old.streams
        }
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return moved


def damage(path, packets, name="damaged"):
    """Copy a file, with the data of the video packets of these numbers overwritten."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for number, packet in enumerate(container.demux(video=0)):
            if number in packets:
                at = data.index(bytes(packet))
                data[at : at + packet.size] = b"\xff" * packet.size
    damaged = path.with_name(name + path.suffix)
    damaged.write_bytes(data)
    return damaged


def in_memory(path):
    """Read a file's bytes as ComfyUI passes them."""
    return BytesIO(path.read_bytes())


def sound_of(path, stream=0):
    """Packets of an audio stream: (seconds, bytes)."""
    with av.open(str(path)) as container:
        packets = container.demux(container.streams.audio[stream])
        return [(p.pts * p.time_base, bytes(p)) for p in packets if p.size]


def fill_disk(monkeypatch, room):
    """Let our video files write `room` bytes together, then report a full disk."""
    from live2diff_core.video import output as video_output

    class LimitedFile:
        left = room

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            if LimitedFile.left <= 0:
                raise OSError(28, "No space left on device")
            # As a real disk does: what fits is written, the rest is not.
            written = self.file.write(data[: LimitedFile.left])
            LimitedFile.left -= written
            return written

    class LimitedPartFile(video_output._PartFile):
        def __init__(self, path):
            super().__init__(path)
            self._file = LimitedFile(self._file)

    monkeypatch.setattr(video_output, "_PartFile", LimitedPartFile)
