"""Decodes the frames of a container with PyAV, also where the file is damaged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from itertools import chain

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from .container import (
    Source,
    TrimWindow,
    begin_of,
    frame_rate_of,
    name_of,
    open_container,
    stated_end,
    video_stream,
)
from .frame import PendingFrame, VideoError, VideoInfo, WarningLog
from .joints import find_joints
from .pixels import RgbFromFrame

# Frames between the demuxer and the decoder's output; codecs allow 16.
_IN_FLIGHT = 64
# A cut file fails once for every packet its index still lists.
_MAX_READ_ERRORS = 64


class FrameClock:
    """Time stamps of frames in presentation order, in ticks: from the file, strictly increasing.

    Args:
        first: ticks of the first frame, should it have no stamp.
        ticks_per_frame: at the average rate.
    """

    def __init__(self, first: int, ticks_per_frame: int) -> None:
        """Begin before the first frame."""
        self._ticks_per_frame = ticks_per_frame
        self._next = first
        self._last: int | None = None
        self.guessed = False

    def ticks(self, stamp: int | None) -> int:
        """Return the ticks of the next frame, whose stamp in the file is `stamp`."""
        ticks = self._next if stamp is None else stamp
        self.guessed |= stamp is None
        if self._last is not None:
            # By one tick: the later frames, whose stamps may be right, keep theirs.
            ticks = max(ticks, self._last + 1)
        self._last, self._next = ticks, ticks + self._ticks_per_frame
        return ticks


class ContainerSource:
    """Frames of a file that FFmpeg reads, decoded as they are asked for.

    Args:
        source: file, or its bytes.
        window: trim window.
        log: takes the warnings.

    Raises:
        VideoError: not a video, no video stream, or no frame decodes in the window.
    """

    def __init__(self, source: Source, window: TrimWindow, log: WarningLog) -> None:
        """Open the file and decode its first frame, which has the size and the rotation."""
        self._source, self._log, self._name = source, log, name_of(source)
        self._window, self._shown = window, 0
        # As text; of the last frame, and of the first.
        self._size = self._first_size = ""
        self._container = open_container(source)
        try:
            self._choose_stream()
            self._joints = find_joints(source, self._container, self._stream)
            self._shift = self._joints.shifter()
            self._places = deque(self._joints.places)
            begin = begin_of(self._container, self._stream)
            self._origin, self._end = window.ticks(self._time_base, begin)
            frames = self._frames_in_window()
            first = next(frames, None)
            if first is None:
                raise VideoError(self._nothing())
        except VideoError:
            self.close()
            raise
        self._stamped = chain([first], frames)
        self.info = self._read_info(first[1])
        quarter_turns = self.info.rotation // 90
        self._convert = RgbFromFrame(first[1].width, first[1].height, quarter_turns)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def frames(self) -> Iterator[PendingFrame]:
        """Yield the frames in the trim window, in order of time."""
        for ticks, frame in self._stamped:
            self._shown += 1
            yield PendingFrame(
                time=(ticks - self._origin) * self._time_base,
                duration=self._duration_of(ticks),
                image=partial(self._convert, frame),
            )

    def _choose_stream(self) -> None:
        self._stream: VideoStream = video_stream(self._container, self._name)
        # Frame threads repair damage differently from run to run; slices do not.
        self._stream.thread_type = "SLICE"
        # Durations of packets by stamp, of the few in flight: PyAV 14's frames have none.
        self._durations: dict[int, int] = {}
        # AVI stores no presentation times, and FFmpeg's guesses are wrong with B-frames. Its frames
        # are shown in the order of the decoding stamps, whose gaps are frames left out.
        self._decoding_order = self._container.format.name == "avi"
        self._stamps: deque[int] = deque(maxlen=_IN_FLIGHT)
        self._rate = frame_rate_of(self._stream)
        self._time_base = self._stream.time_base or Fraction(1, 1000)
        ticks_per_frame = max(1, round(1 / (self._rate * self._time_base)))
        self._clock = FrameClock(self._stream.start_time or 0, ticks_per_frame)

    def _frames_in_window(self) -> Iterator[tuple[int, VideoFrame]]:
        """Yield the frames inside the trim window, with their ticks."""
        ticks = None
        for ticks, frame in self._from_keyframe():
            if self._end is not None and ticks >= self._end:
                return
            if ticks >= self._origin:
                self._tell_of_jumps(ticks)
                self._tell_of_size(frame, ticks)
                if frame.is_corrupt:
                    self._warn("A damaged frame was repaired", ticks)
                yield ticks, frame
        if ticks is not None and not self._clock.guessed:
            self._check_end(ticks)

    def _from_keyframe(self) -> Iterator[tuple[int, VideoFrame]]:
        """Decode from the last keyframe before the window."""
        # Where stamps jump, seeking by them leads anywhere.
        if self._window.start > 0 and not self._joints:
            head = None
            with suppress(av.error.FFmpegError):
                self._container.seek(self._origin, stream=self._stream)
                frames = self._stamped_frames()
                head = next(frames, None)
            if head is not None and head[0] <= self._origin and not self._clock.guessed:
                yield head
                yield from frames
                return
            # It cannot seek, the index is wrong, or there are no stamps to seek by.
            self._container.close()
            self._container = open_container(self._source)
            self._choose_stream()
        yield from self._stamped_frames()

    def _stamped_frames(self) -> Iterator[tuple[int, VideoFrame]]:
        for frame in self._decode():
            stamp = frame.pts
            if self._decoding_order:
                stamp = self._stamps.popleft() if self._stamps else None
            yield self._clock.ticks(stamp), frame

    def _decode(self) -> Iterator[VideoFrame]:
        for packet in self._packets():
            try:
                frames = self._stream.decode(packet)
            except av.error.FFmpegError as error:
                message = f"Data that does not decode was left out ({error.strerror})"
                ticks, byte = (packet.pts, packet.pos) if packet is not None else (None, None)
                self._warn(message, ticks, byte)
                continue
            yield from frames

    def _packets(self) -> Iterator[Packet | None]:
        """Yield the packets of the video, then None or an empty one, which flushes the decoder."""
        errors = 0
        while errors < _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:
                        errors = 0
                        self._shift(packet)
                        self._note(packet)
                    yield packet
                return
            except av.error.FFmpegError as error:
                errors += 1
                self._warn(f"The file cannot be read further ({error.strerror})", None)
        yield None

    def _note(self, packet: Packet) -> None:
        if packet.is_corrupt and not self._shift.at_joint:
            self._warn("A packet is cut off", packet.pts, packet.pos)
        stamp = packet.dts if self._decoding_order else packet.pts
        if stamp is None:
            return
        if self._decoding_order:
            self._stamps.append(stamp)
        if packet.duration:
            self._durations[stamp] = packet.duration
            if len(self._durations) > _IN_FLIGHT:
                del self._durations[min(self._durations)]

    def _duration_of(self, ticks: int) -> Fraction:
        """Return the seconds that a frame lasts if no other follows."""
        stated = self._durations.get(ticks)
        duration = stated * self._time_base if stated else 1 / self._rate
        if self._end is not None:
            duration = min(duration, (self._end - ticks) * self._time_base)
        return duration

    def _check_end(self, ticks: int) -> None:
        """Warn if the file states an end long after the last frame, which is at `ticks`."""
        end = self._stated_end()
        if end is None:
            return
        if self._end is not None:
            end = min(end, self._end * self._time_base)
        missing = end - ticks * self._time_base - self._duration_of(ticks)
        if missing > max(Fraction(1, 20), Fraction(3, 2) / self._rate):
            self._warn(f"The video ends {float(missing):.3f} s before the end it states", ticks)

    def _stated_end(self) -> Fraction | None:
        """Return the seconds at which the video ends; what a joined file states is one part's."""
        if self._joints and self._joints.end is not None:
            return self._joints.end * self._time_base
        return stated_end(self._stream)

    def _tell_of_jumps(self, ticks: int) -> None:
        """Warn of jumps in the stamps before the frame at `ticks`."""
        while self._places and self._places[0][0] <= ticks:
            place, message = self._places.popleft()
            if place > self._origin:
                self._warn(message, ticks, beside=True)

    def _tell_of_size(self, frame: VideoFrame, ticks: int) -> None:
        """Warn if a frame is not of the size of the one before it."""
        size = f"{frame.width}x{frame.height}"
        before = self._size or size
        first = self._first_size = self._first_size or size
        if size != before:
            done = "as the first frames are" if size == first else f"and is scaled to {first}"
            message = f"The size changes from {before} to {size}, {done}"
            self._warn(message, ticks, beside=True)
        self._size = size

    def _warn(
        self, message: str, ticks: int | None, byte: int | None = None, beside: bool = False
    ) -> None:
        time = (ticks - self._origin) * self._time_base if ticks is not None else None
        self._log.warn(message, self._shown, time, byte, beside)

    def _nothing(self) -> str:
        if self._window.start > 0 or self._end is not None:
            length = self._container.duration
            known = f" It is {length / av.time_base:.3f} s long." if length else ""
            return f"{self._name} has no frames in the part that was asked for.{known}"
        return (
            f"{self._name}: not one frame of its {self._stream.codec_context.name} video decodes."
        )

    def _read_info(self, first: VideoFrame) -> VideoInfo:
        rotation = round(first.rotation / 90) % 4 * 90
        sideways = rotation % 180 == 90
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        audio = [s.codec_context for s in self._container.streams.audio]
        return VideoInfo(
            width=first.height if sideways else first.width,
            height=first.width if sideways else first.height,
            frame_rate=self._rate,
            time_base=self._time_base,
            frame_count=self._count(),
            rotation=rotation,
            sample_aspect_ratio=1 / aspect if sideways else aspect,
            codec=self._stream.codec_context.name,
            audio_codecs=tuple(context.name for context in audio if context is not None),
        )

    def _count(self) -> int | None:
        if self._window.start == 0 and self._end is None and self._stream.frames:
            return self._stream.frames
        end = self._stated_end()
        if end is None and self._container.duration:
            end = Fraction(
                (self._container.start_time or 0) + self._container.duration, av.time_base
            )
        if self._end is not None:
            asked = self._end * self._time_base
            end = asked if end is None else min(end, asked)
        if end is None:
            return None
        return max(1, round((end - self._origin * self._time_base) * self._rate))
