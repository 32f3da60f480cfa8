"""Lists segments, pieces of a video that are complete files, and joins them to one video."""

from __future__ import annotations

import heapq
import json
import logging
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

from .container import Source, TrimWindow
from .frame import VideoError
from .output import PART, SUFFIXES, VideoOutput, sync_folder
from .sound import TimedPacket, Warn, sound_packets

_LOG = logging.getLogger(__name__)

TAG = "live2diff_segment"
SUFFIX = ".mp4"
ASIDE = ".aside"


@dataclass(frozen=True)
class Segment:
    """A complete piece of a video.

    Attributes:
        path: its file. Inside, time begins at 0: it plays by itself.
        first_frame: index of its first frame in the video.
        frames: how many it holds.
        start: seconds of its first frame in the video.
        end: seconds at which its last frame ends.
        key: size, time base and encoding, as text.
    """

    path: Path
    first_frame: int
    frames: int
    start: Fraction
    end: Fraction
    key: str

    @property
    def stop_frame(self) -> int:
        """Index of the first frame behind it."""
        return self.first_frame + self.frames


def segment_path(folder: Path, first_frame: int) -> Path:
    """Return the path of the segment that begins with `first_frame`."""
    return folder / f"segment_{first_frame:09d}{SUFFIX}"


def segment_tag(first_frame: int, start: Fraction, key: str) -> dict[str, str]:
    """Return the metadata of a segment's file; its length, known only at the end, is left out."""
    return {TAG: json.dumps({"first_frame": first_frame, "start": str(start), "key": key})}


def list_segments(folder: Path) -> list[Segment]:
    """List a folder's complete segments from frame 0 to the first gap; change no file.

    Raises:
        OSError, MemoryError: one of the files cannot be read, which does not mean that it is
            damaged.
    """
    segments: list[Segment] = []
    for path in sorted(folder.glob(f"segment_*{SUFFIX}")):
        segment = _read(path)
        expected = segments[-1].stop_frame if segments else 0
        if segment is None or segment.first_frame != expected:
            break
        segments.append(segment)
    return segments


def clear_segments(folder: Path, keep: Sequence[Segment]) -> list[Path]:
    """Put every segment of `folder` aside that is not kept, and delete what a crash left of one.

    Returns:
        The new paths of those put aside.
    """
    kept = {segment.path for segment in keep}
    for path in folder.glob(f"segment_*{SUFFIX}{PART}"):
        if path.is_dir():
            put_aside(path)
        else:
            path.unlink(missing_ok=True)
    # The last comes first: if this is interrupted, what is left still has no gap.
    found = sorted(folder.glob(f"segment_*{SUFFIX}"), reverse=True)
    return [put_aside(path) for path in found if path not in kept]


def put_aside(path: Path) -> Path:
    """Give a file or folder a free name that ends in ".aside"; return it."""
    names = (f"{path.name}.{number}{ASIDE}" if number else path.name + ASIDE for number in count())
    free = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    path.rename(free)
    sync_folder(path.parent)
    return free


def _read(path: Path) -> Segment | None:
    """Read the segment of a file, or None if it is damaged or not one of ours."""
    if not stat.S_ISREG(path.stat().st_mode):
        return None  # To open a pipe would wait for another process for ever.
    with path.open("rb"):
        pass  # What keeps it from being opened is no damage.
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            tag = json.loads(container.metadata[TAG])
            start = Fraction(tag["start"])
            if not stream.frames or stream.duration is None or stream.time_base is None:
                return None
            return Segment(
                path=path,
                first_frame=int(tag["first_frame"]),
                frames=stream.frames,
                start=start,
                end=start + stream.duration * stream.time_base,
                key=str(tag["key"]),
            )
    except (OSError, MemoryError):
        raise
    except (av.error.FFmpegError, LookupError, ValueError, TypeError):
        return None


def assemble(
    segments: Sequence[Segment],
    output: Path,
    *,
    audio_from: Source | None = None,
    start: float = 0.0,
    duration: float = 0.0,
    complete: bool = True,
    metadata: Mapping[str, str] | None = None,
    warn: Warn = _LOG.warning,
) -> Path:
    """Join segments to one video without encoding anything again.

    Args:
        segments: from frame 0 on, without gaps.
        output: file to write; see `container_for` for its suffix.
        audio_from: original whose audio streams are copied, all of them; those that `output` does
            not take become FLAC.
        start, duration: the original's trim window, as for `open_video`. With a start, sound begins
            with the first packet that begins inside.
        complete: whether these are all frames. If not, sound ends with the last of them.
        metadata: tags of the file.
        warn: takes what is wrong with the sound of the original.

    Returns:
        `output`.

    Raises:
        VideoError: no segments, segments that do not belong together, or an original that cannot
            be read.
        DiskFullError, VideoWriteError: it cannot be written. The segments are safe.
    """
    if output.suffix not in SUFFIXES:
        raise VideoError(f"{output.name}: choose one of {', '.join(SUFFIXES)}.")
    _check(segments)
    window = TrimWindow(start, duration)
    end = None if complete else segments[-1].end
    with av.open(str(segments[0].path)) as first:
        template = first.streams.video[0]
        result = _open_output(output, segments, template, metadata or {})
        sound = sound_packets(audio_from, result.container, window, end, warn)
        try:
            with result.writing(), closing(sound):
                _write(result.container, segments, template, sound)
                result.commit()
        except BaseException:
            result.abandon()
            raise
    return output


def _check(segments: Sequence[Segment]) -> None:
    if not segments:
        raise VideoError("There are no frames to make a video of.")
    expected = 0
    for segment in segments:
        if segment.first_frame != expected or segment.key != segments[0].key:
            raise VideoError(f"{segment.path} does not continue the segments before it.")
        expected = segment.stop_frame


def _open_output(
    path: Path, segments: Sequence[Segment], template: VideoStream, metadata: Mapping[str, str]
) -> VideoOutput:
    """Open the file that takes the packets of `segments`, with the ticks of `template`."""
    assert template.time_base is not None
    return VideoOutput(
        path,
        metadata,
        time_base_denominator=template.time_base.denominator,
        frames_safe=segments[-1].stop_frame,
        folder=segments[0].path.parent,
    )


def _write(
    output: OutputContainer,
    segments: Sequence[Segment],
    template: VideoStream,
    sound: Iterator[TimedPacket],
) -> None:
    """Copy all packets in order of time."""
    stream = output.add_stream_from_template(template, opaque=True)
    # MP4 counts its frames itself; Matroska would state the ticks per second as its rate.
    seconds = segments[-1].end - segments[0].start
    rate = segments[-1].stop_frame / seconds
    stream.codec_context.framerate = rate.limit_denominator(100_000)
    # FFmpeg holds packets back until all streams have caught up; in order, it holds few. The merge
    # begins with the first packet of each, so all streams are there before one is written.
    merged = heapq.merge(_video_packets(segments, stream), sound, key=lambda item: item[:2])
    for _, _, packet in merged:
        output.mux(packet)


def _video_packets(segments: Sequence[Segment], stream: VideoStream) -> Iterator[TimedPacket]:
    extradata = None
    for segment in segments:
        with av.open(str(segment.path)) as container:
            source = container.streams.video[0]
            # The decoder gets the extradata once, for all segments.
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
