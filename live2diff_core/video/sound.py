"""The sound of the original on the clock of the translated video: copied, or encoded as FLAC."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from fractions import Fraction
from io import BytesIO

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from .container import (
    Source,
    TrimWindow,
    begin_of,
    name_of,
    open_container,
    starts_like_webp,
    video_stream,
)
from .joints import find_joints
from .pictures import find_pictures

_LOG = logging.getLogger(__name__)

# Packets of sound may lie this many seconds before the pictures of their time.
_INTERLEAVING = 10
# Seconds, number of the stream, packet.
TimedPacket = tuple[Fraction, int, Packet]
# Takes a warning.
Warn = Callable[[str], object]
# Seconds. The clocks of files are rounded, some to milliseconds; a longer gap is a real one.
_ROUNDING = Fraction(1, 50)


def container_for(audio_from: Source | None) -> str:
    """Return the suffix of a file that takes the sound of a video.

    It is ".mov" for PCM, if all of the sound fits, since few players expect PCM in MP4. Else it is
    ".mp4", and kinds of sound that do not fit become FLAC. FFmpeg reads both as one format, so that
    the host's Save Video copies either into an MP4 without encoding: what goes into ".mov" must
    therefore fit into MP4, too.

    Raises:
        VideoError: it is not a video.
    """
    if audio_from is None or _is_pictures(audio_from):
        return ".mp4"
    with open_container(audio_from) as container:
        streams = _audio_streams(container)
        pcm = any(stream.codec_context.name.startswith("pcm_") for stream in streams)
        both = all(_takes("mov", stream) and _takes("mp4", stream) for stream in streams)
    return ".mov" if pcm and both else ".mp4"


def _is_pictures(source: Source) -> bool:
    if not isinstance(source, BytesIO) and find_pictures(source) is not None:
        return True
    return starts_like_webp(source)


def _audio_streams(container: InputContainer) -> list[AudioStream]:
    """List the audio streams of a kind that FFmpeg reads, whose beginning it has found."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    return [s for s in known if s.codec_context.sample_rate and s.codec_context.layout.nb_channels]


def sound_packets(
    audio_from: Source | None,
    output: OutputContainer,
    window: TrimWindow,
    end: Fraction | None,
    warn: Warn = _LOG.warning,
) -> Generator[TimedPacket, None, None]:
    """Add the audio streams of the original to `output`, then yield their packets for it.

    Args:
        audio_from: original; None and pictures have no sound.
        output: takes the streams: as they are where it can, else as FLAC.
        window: trim window of the original, whose beginning is zero in `output`. With a start,
            sound begins with the first packet that begins inside.
        end: seconds in `output` at which the sound ends, if not with the window or the original.
        warn: takes what is wrong with the sound.

    Raises:
        VideoError: the original cannot be read.
    """
    if audio_from is None or _is_pictures(audio_from):
        return
    with open_container(audio_from) as original:
        streams = _audio_streams(original)
        if len(streams) < len(original.streams.audio):
            warn(
                f"{original.name}: an audio stream is left out, since its kind is unknown or it "
                "begins too late."
            )
        if not streams:
            return
        video = video_stream(original, name_of(original.name))
        joints = find_joints(audio_from, original, video)
        origin, length = _span(original, video, window, end)
        if window.start > _INTERLEAVING and not joints:
            _seek(original, video, origin)
        shift = joints.shifter()
        tracks = {stream.index: _add_track(stream, output, origin, warn) for stream in streams}
        last: dict[int, int] = {}
        for packet in _demux(original, streams, warn):
            shift(packet)
            ticks = packet.pts if packet.pts is not None else packet.dts
            if ticks is None or packet.time_base is None:
                continue
            time, index = ticks * packet.time_base - origin, packet.stream_index
            if length is not None and time > length + _INTERLEAVING:
                break
            outside = (window.start > 0 and time < 0) or (length is not None and time >= length)
            # Stamps that run backwards come from damage; no container takes them.
            if outside or ticks <= last.get(index, ticks - 1):
                continue
            packet.pts = last[index] = ticks
            yield from tracks[index].write(packet)
        for track in tracks.values():
            yield from track.write(None)


def _span(
    original: InputContainer, video: VideoStream, window: TrimWindow, end: Fraction | None
) -> tuple[Fraction, Fraction | None]:
    """Return where the sound begins in the original, and its length, in seconds."""
    time_base = video.time_base or Fraction(1, 1000)
    first, stop = window.ticks(time_base, begin_of(original, video))
    origin = first * time_base
    lengths = [] if end is None else [end]
    if stop is not None:
        lengths.append(stop * time_base - origin)
    return origin, min(lengths, default=None)


def _seek(original: InputContainer, video: VideoStream, origin: Fraction) -> None:
    """Seek to shortly before `origin`, in seconds, where the file can."""
    time_base = video.time_base or Fraction(1, 1000)
    try:
        original.seek(int((origin - _INTERLEAVING) / time_base), stream=video)
    except av.error.FFmpegError:
        _LOG.info("%s cannot seek; its sound is read from the beginning.", original.name)


def _demux(container: InputContainer, streams: list[AudioStream], warn: Warn) -> Iterator[Packet]:
    """Yield the packets of `streams`, as far as the file can be read."""
    try:
        for packet in container.demux(streams):
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        warn(f"{container.name}: the sound ends early ({error.strerror}).")


def _add_track(
    audio: AudioStream, output: OutputContainer, origin: Fraction, warn: Warn
) -> _CopiedSound | _FlacSound:
    """Add `audio` to `output`: as it is where the container takes it, else as FLAC."""
    if _takes(output.format.name, audio):
        return _CopiedSound(audio, output, origin)
    _LOG.info(
        "%s sound does not fit into a %s file and becomes FLAC, without loss.",
        audio.codec_context.name,
        output.format.name,
    )
    return _FlacSound(audio, output, origin, warn)


def _takes(container_format: str, audio: AudioStream) -> bool:
    """Try whether a container takes packets of `audio`, since FFmpeg's versions differ."""
    try:
        with av.open(BytesIO(), "w", format=container_format) as trial:
            _add_copy(audio, trial)
            trial.start_encoding()
    except (ValueError, av.error.FFmpegError):
        return False
    return True


def _add_copy(audio: AudioStream, output: OutputContainer) -> AudioStream:
    copy = output.add_stream_from_template(audio, opaque=True)
    copy.codec_context.layout = _layout(audio)
    if "language" in audio.metadata:
        copy.metadata["language"] = audio.metadata["language"]
    return copy


def _layout(audio: AudioStream) -> str:
    """Return the name of the layout of the channels.

    AVI and Matroska state only their number for PCM, but MP4 needs a name: without it, the host's
    Save Video could not copy the sound.
    """
    layout = audio.codec_context.layout
    unknown = layout.name == f"{layout.nb_channels} channels"
    return f"{layout.nb_channels}c" if unknown else layout.name


class _CopiedSound:
    """Copies the packets of one stream, with times from `origin` on, in seconds of the original."""

    def __init__(self, audio: AudioStream, output: OutputContainer, origin: Fraction) -> None:
        self._copy, self._origin = _add_copy(audio, output), origin
        self._last: int | None = None
        self._gap = 0

    def write(self, packet: Packet | None) -> Iterator[TimedPacket]:
        """Change `packet` into one for the new file; None is the end."""
        if packet is None:
            return
        assert packet.pts is not None and packet.time_base is not None
        time = packet.pts * packet.time_base - self._origin
        if self._last is not None:
            self._gap = packet.pts - self._last
        self._last = packet.pts
        # Matroska often states no duration, and MP4 would then end before the last packet.
        packet.duration = packet.duration or self._gap
        packet.pts = packet.dts = round(time / packet.time_base)
        packet.stream = self._copy
        yield time, self._copy.index, packet


class _FlacSound:
    """Decodes one stream, and encodes it without loss, with times from `origin` on.

    FLAC holds up to 24 bits, and lossy kinds of sound have no more.
    """

    def __init__(
        self, audio: AudioStream, output: OutputContainer, origin: Fraction, warn: Warn
    ) -> None:
        layout, context = _layout(audio), audio.codec_context
        # Frames without a layout cannot be converted.
        context.layout = layout
        self._decoder, self._rate, self._origin = context, context.sample_rate, origin
        self._stream = output.add_stream("flac", rate=self._rate, layout=layout)
        self._stream.codec_context.format = "s16" if context.format.bits <= 16 else "s32"
        # Sample of the new file at which the next frame begins.
        self._next: int | None = None
        self._damaged, self._warn = False, warn

    def write(self, packet: Packet | None) -> Iterator[TimedPacket]:
        """Encode what `packet` holds; None is the end, which flushes what was held back."""
        for frame in self._decode(packet):
            self._place(frame)
            yield from self._encode(frame)
        if packet is None:
            yield from self._encode(None)

    def _decode(self, packet: Packet | None) -> list[AudioFrame]:
        try:
            return self._decoder.decode(packet)
        except av.error.FFmpegError as error:
            if not self._damaged:
                self._warn(f"Sound that cannot be decoded is left out ({error.strerror}).")
            self._damaged = True
            return []

    def _place(self, frame: AudioFrame) -> None:
        """Put `frame` behind the one before, or later where its time shows a gap."""
        begin = self._next or 0
        if frame.pts is not None and frame.time_base is not None:
            stated = round((frame.pts * frame.time_base - self._origin) * self._rate)
            if self._next is None or stated - begin > self._rate * _ROUNDING:
                begin = stated
        frame.pts, frame.time_base = begin, Fraction(1, self._rate)
        self._next = begin + frame.samples

    def _encode(self, frame: AudioFrame | None) -> Iterator[TimedPacket]:
        for packet in self._stream.encode(frame):
            assert packet.pts is not None and packet.time_base is not None
            yield packet.pts * packet.time_base, self._stream.index, packet
