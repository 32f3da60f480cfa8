"""The sound of the original: its packets, as they are, on the clock of the translated video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

from .video_error import VideoError
from .video_pictures import find_pictures
from .video_timeline import (
    Source,
    Window,
    begin_of,
    name_of,
    open_container,
    starts_like_webp,
    video_stream,
)

_LOG = logging.getLogger(__name__)

# What players take; FFmpeg would put more into each.
_MP4_AUDIO = {"aac", "mp3", "mp3float", "mp2", "ac3", "eac3", "opus", "alac", "flac"}
_MOV_AUDIO = {"aac", "mp3", "mp3float", "mp2", "ac3", "eac3", "alac"}
# Packets of sound may lie this far before the pictures of their time.
_INTERLEAVING = 10

# Seconds, number of the stream, packet.
TimedPacket = tuple[Fraction, int, Packet]


def container_for(audio_from: Source | None) -> str:
    """Suffix of a container that takes the sound of a video as it is.

    ".mp4" for silence and what MP4 players know; ".mov" for PCM; ".mkv" for all else, and for
    mixtures that neither takes.

    Raises:
        VideoError: it is not a video.
    """
    if audio_from is None or _is_pictures(audio_from):
        return ".mp4"
    with open_container(audio_from) as container:
        codecs = {stream.codec_context.name for stream in audio_streams(container)}
    pcm = {codec for codec in codecs if codec.startswith("pcm_")}
    if not codecs - _MP4_AUDIO:
        return ".mp4"
    return ".mov" if not codecs - _MOV_AUDIO - pcm else ".mkv"


def _is_pictures(source: Source) -> bool:
    if not isinstance(source, BytesIO) and find_pictures(source) is not None:
        return True
    return starts_like_webp(source)


def open_sound(source: Source | None) -> InputContainer | None:
    """Open the file with the sound; None if there can be none."""
    if source is None or _is_pictures(source):
        return None
    return open_container(source)


def audio_streams(container: InputContainer) -> list[AudioStream]:
    """Audio streams that can be copied; FFmpeg knows nothing of some."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if len(known) < len(container.streams.audio):
        _LOG.warning("%s: an audio stream of unknown kind is left out.", container.name)
    return known


def copy_stream(audio: AudioStream, output: OutputContainer) -> AudioStream:
    """Add a stream for the packets of `audio` to `output`.

    Raises:
        VideoError: it does not fit.
    """
    try:
        copy = output.add_stream_from_template(audio, opaque=True)
    except ValueError as error:
        name = audio.codec_context.name
        raise VideoError(
            f"{name} sound does not fit into a {output.format.name} file; `container_for` tells "
            "which takes it."
        ) from error
    if "language" in audio.metadata:
        copy.metadata["language"] = audio.metadata["language"]
    return copy


def sound_packets(
    original: InputContainer,
    copies: dict[int, AudioStream],
    window: Window,
    end: Fraction | None,
) -> Iterator[TimedPacket]:
    """Packets of all audio streams inside the window, on the window's clock, up to `end`."""
    origin, length = _span(original, window, end)
    last: dict[int, int] = {}
    gaps: dict[int, int] = {}
    for packet in _demux(original, list(copies)):
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None or packet.time_base is None:
            continue
        time, copy = ticks * packet.time_base - origin, copies[packet.stream_index]
        if length is not None and time > length + _INTERLEAVING:
            return
        outside = (window.trimmed and time < 0) or (length is not None and time >= length)
        # Stamps that run backwards come from damage; no container takes them.
        if outside or ticks <= last.get(copy.index, ticks - 1):
            continue
        if copy.index in last:
            gaps[copy.index] = ticks - last[copy.index]
        last[copy.index] = ticks
        # Matroska often gives none, and MP4 would end before the last packet.
        packet.duration = packet.duration or gaps.get(copy.index, 0)
        packet.pts = packet.dts = round(time / packet.time_base)
        packet.stream = copy
        yield time, copy.index, packet


def _span(
    original: InputContainer, window: Window, end: Fraction | None
) -> tuple[Fraction, Fraction | None]:
    """Seconds on the file's clock that are 0, and how many follow; goes there if it is far."""
    video = video_stream(original, name_of(original.name))
    time_base = video.time_base or Fraction(1, 1000)
    first, stop = window.ticks(time_base, begin_of(original, video))
    origin = first * time_base
    lengths = [] if end is None else [end]
    if stop is not None:
        lengths.append(stop * time_base - origin)
    if window.start > _INTERLEAVING:
        try:
            original.seek(int((origin - _INTERLEAVING) / time_base), stream=video)
        except av.error.FFmpegError:
            _LOG.info("%s cannot seek; its sound is read from the beginning.", original.name)
    return origin, min(lengths, default=None)


def _demux(container: InputContainer, indices: list[int]) -> Iterator[Packet]:
    """Packets of some streams, as far as the file can be read."""
    streams = [container.streams[index] for index in indices]
    try:
        for packet in container.demux(streams):
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        _LOG.warning("%s: the sound ends early (%s).", container.name, error.strerror)
