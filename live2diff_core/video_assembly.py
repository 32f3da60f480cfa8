"""Segments joined to one video, with the sound of the original, by copying packets."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from .video_error import VideoError
from .video_output import SUFFIXES, VideoOutput
from .video_pictures import find_pictures
from .video_segment import Segment
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

_Timed = tuple[Fraction, int, Packet]


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
        codecs = {stream.codec_context.name for stream in _audio_streams(container)}
    pcm = {codec for codec in codecs if codec.startswith("pcm_")}
    if not codecs - _MP4_AUDIO:
        return ".mp4"
    return ".mov" if not codecs - _MOV_AUDIO - pcm else ".mkv"


def assemble(
    segments: Sequence[Segment],
    output: Path,
    *,
    audio_from: Source | None = None,
    start: float = 0.0,
    duration: float = 0.0,
    complete: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Join segments to one video without encoding anything again.

    Args:
        segments: from frame 0 on, without gaps.
        output: file to write; see `container_for` for its suffix.
        audio_from: original whose audio streams are copied, all of them.
        start, duration: the original's trim window, as for `open_video`. With a start, sound begins
            with the first packet that begins inside.
        complete: whether these are all frames. If not, sound ends with the last of them.
        metadata: tags of the file.

    Returns:
        `output`.

    Raises:
        VideoError: no segments, segments that do not belong together, an original that cannot be
            read, or sound that the container does not take.
        DiskFullError, VideoWriteError: it cannot be written. The segments are safe.
    """
    if output.suffix not in SUFFIXES:
        raise VideoError(f"{output.name}: choose one of {', '.join(SUFFIXES)}.")
    _check(segments)
    window = Window(start, duration)
    with av.open(str(segments[0].path)) as first:
        template = first.streams.video[0]
        result = VideoOutput(
            output,
            metadata or {},
            time_base_denominator=(template.time_base or Fraction(1)).denominator,
            frames_safe=segments[-1].stop_frame,
            folder=segments[0].path.parent,
        )
        try:
            end = None if complete else segments[-1].end
            _write(result.container, segments, template, _sound(audio_from), window, end)
        except VideoError:
            result.abandon()
            raise
        except (av.error.FFmpegError, OSError, ValueError) as error:
            failure = result.failure(error)
            result.abandon()
            raise failure from error
        except BaseException:
            result.abandon()
            raise
    result.commit()
    return output


def _check(segments: Sequence[Segment]) -> None:
    if not segments:
        raise VideoError("There are no frames to make a video of.")
    expected = 0
    for segment in segments:
        if segment.first_frame != expected or segment.key != segments[0].key:
            raise VideoError(f"{segment.path} does not continue the segments before it.")
        expected = segment.stop_frame


def _is_pictures(source: Source) -> bool:
    if not isinstance(source, BytesIO) and find_pictures(source) is not None:
        return True
    return starts_like_webp(source)


def _sound(source: Source | None) -> InputContainer | None:
    """Open the file with the sound; None if there can be none."""
    if source is None or _is_pictures(source):
        return None
    return open_container(source)


def _audio_streams(container: InputContainer) -> list[AudioStream]:
    """Audio streams that can be copied; FFmpeg knows nothing of some."""
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if len(known) < len(container.streams.audio):
        _LOG.warning("%s: an audio stream of unknown kind is left out.", container.name)
    return known


def _write(
    output: OutputContainer,
    segments: Sequence[Segment],
    template: VideoStream,
    original: InputContainer | None,
    window: Window,
    end: Fraction | None,
) -> None:
    """Copy all packets in order of time."""
    stream = output.add_stream_from_template(template, opaque=True)
    # MP4 counts its frames itself; Matroska would state the ticks per second.
    seconds = segments[-1].end - segments[0].start
    rate = segments[-1].stop_frame / seconds
    stream.codec_context.framerate = rate.limit_denominator(100_000)
    timed: list[Iterator[_Timed]] = [_video_packets(segments, stream)]
    try:
        if original is not None:
            copies = {}
            for audio in _audio_streams(original):
                copies[audio.index] = _copy_of(audio, output)
            if copies:
                timed.append(_audio_packets(original, copies, window, end))
        # FFmpeg holds packets back until all streams have caught up; in order, it holds few.
        for _, _, packet in heapq.merge(*timed, key=lambda item: item[:2]):
            output.mux(packet)
    finally:
        if original is not None:
            original.close()


def _copy_of(audio: AudioStream, output: OutputContainer) -> AudioStream:
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


def _video_packets(segments: Sequence[Segment], stream: VideoStream) -> Iterator[_Timed]:
    extradata = None
    for segment in segments:
        with av.open(str(segment.path)) as container:
            source = container.streams.video[0]
            # The decoder gets it once, for all.
            if extradata not in (None, source.codec_context.extradata):
                raise VideoError(f"{segment.path} was encoded in another way than the first one.")
            extradata = source.codec_context.extradata
            assert source.time_base is not None
            offset = round(segment.start / source.time_base)
            for packet in container.demux(source):
                if packet.pts is None:
                    continue
                packet.pts += offset
                packet.dts = packet.pts
                packet.stream = stream
                yield packet.pts * source.time_base, stream.index, packet


def _audio_packets(
    original: InputContainer,
    copies: dict[int, AudioStream],
    window: Window,
    end: Fraction | None,
) -> Iterator[_Timed]:
    """Packets of all audio streams inside the window, on the window's clock, up to `end`."""
    video = video_stream(original, name_of(original.name))
    time_base = video.time_base or Fraction(1, 1000)
    first, stop = window.ticks(time_base, begin_of(original, video))
    origin = first * time_base
    ends = [seconds for seconds in (end, (stop or first) * time_base - origin) if seconds]
    length = min(ends, default=None)
    if window.start > _INTERLEAVING:
        try:
            original.seek(int((origin - _INTERLEAVING) / time_base), stream=video)
        except av.error.FFmpegError:
            _LOG.info("%s cannot seek; its sound is read from the beginning.", original.name)
    last: dict[int, int] = {}
    gaps: dict[int, int] = {}
    for packet in _demux(original, list(copies)):
        ticks, copy = (
            packet.pts if packet.pts is not None else packet.dts,
            copies[packet.stream_index],
        )
        if ticks is None or packet.time_base is None:
            continue
        time = ticks * packet.time_base - origin
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


def _demux(container: InputContainer, indices: list[int]) -> Iterator[Packet]:
    """Packets of some streams, as far as the file can be read."""
    streams = [container.streams[index] for index in indices]
    try:
        for packet in container.demux(streams):
            if packet.size:
                yield packet
    except av.error.FFmpegError as error:
        _LOG.warning("%s: the sound ends early (%s).", container.name, error.strerror)
