"""Finds where the time stamps of a file jump, and puts its parts one after the other.

Recordings in MPEG-TS are joined by their bytes (`cat a.ts b.ts`), encoders start anew, and clocks
of 33 bits run over. FFmpeg hands such stamps out as they are. Here the file is read once before it
is decoded: pictures and sound of a part get the same shift, so that a part begins where the longest
stream of the part before it ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from .container import Source, open_container

# Formats whose clocks may start anew within a file; all their streams have one time base.
_FORMATS = {"mpegts", "mpeg"}
# Seconds that a stamp may lie ahead of all others, or frames at the average rate, if those are
# longer. FFmpeg's own tools draw the line there, too.
_FAR_SECONDS, _FAR_FRAMES = 10, 10
# Packets of an old part that may come after the first of a new one, since streams are interleaved.
_MOST_LATE = 500
_MAX_READ_ERRORS = 64
# Ticks after which the clocks of these formats begin anew. FFmpeg puts most of it right.
_CLOCK = 1 << 33
# Packets before a joint of which one may be taken for cut off.
_CUT_AT_JOINT = 2

BACK = "Time stamps jump back; pictures and sound go on without a gap"
AHEAD = "Time stamps jump far ahead; pictures and sound go on without a gap"


@dataclass(frozen=True)
class Joints:
    """The shifts of a file's packets, in ticks of its streams.

    Attributes:
        runs: by index of the stream: (number of the first packet, ticks to add), in order.
        end: tick at which the pictures end, shifted.
        places: (tick of the first picture behind a jump, shifted; message), in order.
    """

    runs: Mapping[int, Sequence[tuple[int, int]]] = field(default_factory=dict)
    end: int | None = None
    places: Sequence[tuple[int, str]] = ()

    def __bool__(self) -> bool:
        """Return whether any packet is shifted."""
        return any(ticks for runs in self.runs.values() for _, ticks in runs)

    def shifter(self) -> Shifter:
        """Begin to shift the packets of a container that has just been opened."""
        return Shifter(self.runs)


class Shifter:
    """Shifts packets in the order in which the container yields them.

    Attributes:
        at_joint: whether the last packet was one of the last ones of its stream before a jump.
            FFmpeg takes such for cut off, since the counters of MPEG-TS jump, too.
    """

    def __init__(self, runs: Mapping[int, Sequence[tuple[int, int]]]) -> None:
        """Begin before the first packet; see `Joints.runs`."""
        self._left = {index: list(of_stream) for index, of_stream in runs.items()}
        self._count = dict.fromkeys(runs, 0)
        self.at_joint = False

    def __call__(self, packet: Packet) -> None:
        """Shift the stamps of the next packet of its stream; it must not be empty."""
        index = packet.stream_index
        left = self._left.get(index)
        if not left:
            return
        while len(left) > 1 and self._count[index] >= left[1][0]:
            left.pop(0)
        self._count[index] += 1
        self.at_joint = len(left) > 1 and self._count[index] + _CUT_AT_JOINT > left[1][0]
        ticks = left[0][1]
        if packet.pts is not None:
            packet.pts += ticks
        if packet.dts is not None:
            packet.dts += ticks
            if packet.pts is not None:
                packet.pts += _turns(packet.pts, packet.dts)


def find_joints(source: Source, container: InputContainer, video: VideoStream) -> Joints:
    """Read a file of a kind whose stamps may jump, and return its joints.

    Args:
        source: the file.
        container: the file, opened; it is not read.
        video: the stream of pictures in it.

    Raises:
        VideoError: it cannot be opened again.
    """
    indices = [video.index, *(s.index for s in container.streams.audio if s.codec_context)]
    streams = [container.streams[index] for index in indices]
    if container.format.name not in _FORMATS or len({s.time_base for s in streams}) > 1:
        return Joints()
    assert video.time_base is not None
    rate = video.average_rate or video.guessed_rate or 1
    far = max(_FAR_SECONDS, _FAR_FRAMES / rate) / video.time_base
    scan = _Scan(round(far))
    with open_container(source) as again:
        for packet in _packets(again, [again.streams[index] for index in indices]):
            scan.note(packet)
    return scan.joints(video.index)


def _packets(container: InputContainer, streams: list[Stream]) -> Iterator[Packet]:
    for _ in range(_MAX_READ_ERRORS):
        try:
            yield from (packet for packet in container.demux(streams) if packet.size)
            return
        except av.error.FFmpegError:
            continue


@dataclass
class _Part:
    """Packets between two jumps, on one clock that does not run over; all in ticks.

    Attributes:
        before: index of the part that its first stream came from; None for the first one.
        opener: that stream.
        opened_at: number of its first packet in the file.
        close: shift that puts its first packet right behind the one before in its stream.
        begin, end: of its packets.
        recent: decoding stamp of the last one.
        last: by stream, number of the last packet in the file.
    """

    before: int | None
    opener: int
    opened_at: int
    close: int
    begin: int
    end: int
    recent: int
    last: dict[int, int] = field(default_factory=dict)


class _Run(NamedTuple):
    """Packets of a stream that are shifted alike.

    Attributes:
        first: number of the first one in the stream.
        part: index of their part.
        turns: ticks by which the clock had run over.
        pts: tick of the first one.
        message: of a jump that they begin with; empty without.
    """

    first: int
    part: int
    turns: int
    pts: int
    message: str = ""


@dataclass
class _Track:
    """One stream as far as it has been read.

    Attributes:
        part: index of the part that it is in.
        count: packets so far.
        recent, step: decoding stamp of the last packet, and the ticks to the next one.
        runs: what follows one another in the stream.
    """

    part: int
    count: int = 0
    recent: int = 0
    step: int = 1
    runs: list[_Run] = field(default_factory=list)


class _Scan:
    """Sorts packets into parts, in the order of the file."""

    def __init__(self, far: int) -> None:
        self._far, self._number = far, 0
        self._parts: list[_Part] = []
        self._tracks: dict[int, _Track] = {}

    def note(self, packet: Packet) -> None:
        """Take in the next packet."""
        index, dts = packet.stream_index, packet.dts
        track = self._tracks.get(index)
        self._number += 1
        if dts is None:
            # It goes with the ones before it.
            if track is not None:
                track.count += 1
            return
        turns = _turns(dts, self._reference(track))
        dts += turns
        pts = dts if packet.pts is None else packet.pts + _turns(packet.pts, dts)
        if track is None:
            track = self._tracks[index] = _Track(self._found(None, dts, index, pts))
            track.runs.append(_Run(0, track.part, turns, pts))
        elif self._jumps(track, dts):
            # By the stamps as they are: half a turn ahead is also half a turn back.
            stated = dts - turns + track.runs[-1].turns
            message = BACK if stated < track.recent else AHEAD
            track.part = self._found(track, dts, index, pts)
            track.runs.append(_Run(track.count, track.part, turns, pts, message))
        elif turns != track.runs[-1].turns:
            track.runs.append(_Run(track.count, track.part, turns, pts))
        elif dts > track.recent:
            track.step = dts - track.recent
        track.step = packet.duration or track.step
        track.count, track.recent = track.count + 1, dts
        part = self._parts[track.part]
        part.begin, part.end = min(part.begin, pts), max(part.end, pts + track.step)
        part.recent, part.last[index] = dts, self._number

    def _reference(self, track: _Track | None) -> int | None:
        """Return a stamp near which the next one of a stream probably is."""
        if track is not None:
            return track.recent
        return self._parts[-1].recent if self._parts else None

    def _jumps(self, track: _Track, dts: int) -> bool:
        if dts <= track.recent - track.step:
            return True
        # A stream of few packets is not ahead where the others of its part are there, too.
        return dts - max(track.recent, self._parts[track.part].recent) > self._far

    def _found(self, track: _Track | None, dts: int, index: int, pts: int) -> int:
        """Return the part that a stream goes on in: one that another is in, or a new one."""
        others = {other.part for other in self._tracks.values() if other is not track}
        if track is not None:
            others.discard(track.part)
        for number in sorted(others, reverse=True):
            part = self._parts[number]
            if part.begin - self._far <= dts <= part.end + self._far:
                return number
        before, close = None, 0
        if track is not None:
            before, close = track.part, track.recent + track.step - dts
        self._parts.append(_Part(before, index, self._number, close, pts, pts, dts))
        return len(self._parts) - 1

    def joints(self, video: int) -> Joints:
        """Return what was found, for the stream `video` and the others."""
        shifts: list[int] = []
        for part in self._parts:
            if part.before is None:
                shifts.append(0)
                continue
            before = self._parts[part.before]
            # Where the part before goes on, this was no joint but a few wrong stamps, or those of
            # one stream alone.
            late = max(before.last.values())
            goes_on = late > part.opened_at + _MOST_LATE
            if goes_on or before.last.get(part.opener, 0) > part.opened_at:
                shifts.append(shifts[part.before] + part.close)
            else:
                shifts.append(shifts[part.before] + before.end - part.begin)
        runs = {
            index: tuple((run.first, shifts[run.part] + run.turns) for run in track.runs)
            for index, track in self._tracks.items()
        }
        places: list[tuple[int, str]] = []
        end = None
        if (seen := self._tracks.get(video)) is not None:
            places = [(run.pts + shifts[run.part], run.message) for run in seen.runs if run.message]
            end = seen.recent + seen.step + shifts[seen.part]
        return Joints(runs, end, tuple(sorted(places)))


def _turns(ticks: int, reference: int | None) -> int:
    """Return the whole turns of the clock, in ticks, that bring `ticks` nearest to `reference`."""
    if reference is None:
        return 0
    return (reference - ticks + _CLOCK // 2) // _CLOCK * _CLOCK
