"""One stream of sound on its way into the translated video: copied, or as FLAC if it must be."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import Protocol

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

_LOG = logging.getLogger(__name__)

# Seconds, number of the stream, packet.
TimedPacket = tuple[Fraction, int, Packet]
# Clocks of files are rounded, some to milliseconds; a longer gap than this is one.
_ROUNDING = Fraction(1, 50)


class SoundTrack(Protocol):
    """Where packets of one stream go."""

    def write(self, packet: Packet, origin: Fraction) -> Iterator[TimedPacket]:
        """Packets for the new file.

        Args:
            packet: of the original, with a time; its times and durations may be changed.
            origin: seconds on the original's clock that are 0 in the new file.
        """

    def flush(self) -> Iterator[TimedPacket]:
        """Packets that were still held back."""


def add_track(audio: AudioStream, output: OutputContainer) -> SoundTrack:
    """Add `audio` to `output`: as it is where the container takes it, else as FLAC."""
    if takes(output.format.name, audio):
        return _CopiedSound(audio, output)
    _LOG.info(
        "%s sound does not fit into a %s file and becomes FLAC, without loss.",
        audio.codec_context.name,
        output.format.name,
    )
    return _FlacSound(audio, output)


def takes(container_format: str, audio: AudioStream) -> bool:
    """Whether a container takes packets of `audio`. Tried out: FFmpeg's versions differ in it."""
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
    """Name of the places of the channels; AVI and Matroska give PCM a number of them only.

    MP4 wants to know: without it, the host's Save Video could not copy the sound.
    """
    layout = audio.codec_context.layout
    unknown = layout.name == f"{layout.nb_channels} channels"
    return f"{layout.nb_channels}c" if unknown else layout.name


class _CopiedSound:
    """Packets as they are."""

    def __init__(self, audio: AudioStream, output: OutputContainer) -> None:
        self._copy = _add_copy(audio, output)
        self._last: int | None = None
        self._gap = 0

    def write(self, packet: Packet, origin: Fraction) -> Iterator[TimedPacket]:
        assert packet.pts is not None and packet.time_base is not None
        time = packet.pts * packet.time_base - origin
        if self._last is not None:
            self._gap = packet.pts - self._last
        self._last = packet.pts
        # Matroska often gives none, and MP4 would end before the last packet.
        packet.duration = packet.duration or self._gap
        packet.pts = packet.dts = round(time / packet.time_base)
        packet.stream = self._copy
        yield time, self._copy.index, packet

    def flush(self) -> Iterator[TimedPacket]:
        return iter(())


class _FlacSound:
    """Decoded, and encoded without loss: up to 24 bits, which is all of what lossy kinds hold."""

    def __init__(self, audio: AudioStream, output: OutputContainer) -> None:
        layout, context = _layout(audio), audio.codec_context
        # Frames without places of channels cannot be converted.
        context.layout = layout
        self._decoder, self._rate = context, context.sample_rate
        self._stream = output.add_stream("flac", rate=self._rate, layout=layout)
        self._stream.codec_context.format = "s16" if context.format.bits <= 16 else "s32"
        # Sample of the new file at which the next frame begins.
        self._next: int | None = None
        self._origin = Fraction(0)
        self._damaged = False

    def write(self, packet: Packet, origin: Fraction) -> Iterator[TimedPacket]:
        self._origin = origin
        yield from self._convert(packet)

    def flush(self) -> Iterator[TimedPacket]:
        yield from self._convert(None)
        yield from self._timed(self._stream.encode(None))

    def _convert(self, packet: Packet | None) -> Iterator[TimedPacket]:
        try:
            frames = self._decoder.decode(packet)
        except av.error.FFmpegError as error:
            if not self._damaged:
                _LOG.warning("Sound that cannot be decoded is left out (%s).", error.strerror)
            self._damaged = True
            return
        for frame in frames:
            self._place(frame)
            yield from self._timed(self._stream.encode(frame))

    def _place(self, frame: AudioFrame) -> None:
        """Put `frame` behind the one before, or later where its time says that there is a gap."""
        begin = self._next or 0
        if frame.pts is not None and frame.time_base is not None:
            told = round((frame.pts * frame.time_base - self._origin) * self._rate)
            if self._next is None or told - begin > self._rate * _ROUNDING:
                begin = told
        frame.pts, frame.time_base = begin, Fraction(1, self._rate)
        self._next = begin + frame.samples

    def _timed(self, packets: list[Packet]) -> Iterator[TimedPacket]:
        for packet in packets:
            assert packet.pts is not None and packet.time_base is not None
            yield packet.pts * packet.time_base, self._stream.index, packet
