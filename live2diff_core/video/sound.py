"""The sound of the original, on the clock of the translated video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from .container import (
    Source,
    TrimWindow,
    begin_of,
    name_of,
    open_container,
    starts_like_webp,
    video_stream,
)
from .pictures import find_pictures
from .sound_track import SoundTrack, TimedPacket, takes

_LOG = logging.getLogger(__name__)

# Packets of sound may lie this far before the pictures of their time.
_INTERLEAVING = 10


def container_for(audio_from: Source | None) -> str:
    """Suffix of the file for the sound of a video.

    ".mov" where it is PCM and takes all of it, since few players expect PCM in MP4; else ".mp4",
    where kinds of sound that it does not take become FLAC. FFmpeg reads both as one format, so that
    the host's Save Video copies either into an MP4 without encoding: what goes into ".mov" must
    therefore fit into MP4, too.

    Raises:
        VideoError: it is not a video.
    """
    if audio_from is None or _is_pictures(audio_from):
        return ".mp4"
    with open_container(audio_from) as container:
        streams = audio_streams(container)
        pcm = any(stream.codec_context.name.startswith("pcm_") for stream in streams)
        both = all(takes("mov", stream) and takes("mp4", stream) for stream in streams)
    return ".mov" if pcm and both else ".mp4"


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
    """Audio streams that can be taken over; FFmpeg knows nothing of some."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if len(known) < len(container.streams.audio):
        _LOG.warning("%s: an audio stream of unknown kind is left out.", container.name)
    return known


def sound_packets(
    original: InputContainer,
    tracks: dict[int, SoundTrack],
    window: TrimWindow,
    end: Fraction | None,
) -> Iterator[TimedPacket]:
    """Packets of audio streams inside the window, on the window's clock, up to `end`.

    Args:
        tracks: where they go, by the number of the stream in `original`.
    """
    origin, length = _span(original, window, end)
    last: dict[int, int] = {}
    for packet in _demux(original, list(tracks)):
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None or packet.time_base is None:
            continue
        time, index = ticks * packet.time_base - origin, packet.stream_index
        if length is not None and time > length + _INTERLEAVING:
            break
        outside = (window.trimmed and time < 0) or (length is not None and time >= length)
        # Stamps that run backwards come from damage; no container takes them.
        if outside or ticks <= last.get(index, ticks - 1):
            continue
        packet.pts = last[index] = ticks
        yield from tracks[index].write(packet, origin)
    for track in tracks.values():
        yield from track.flush()


def _span(
    original: InputContainer, window: TrimWindow, end: Fraction | None
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
