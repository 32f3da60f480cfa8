"""Writes frames into a video, piece by piece: a crash loses the last piece at most."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame

from .encoder import Encoding
from .frame import Image, VideoError
from .output import VideoOutput, VideoWriteError, sync_folder
from .pixels import Yuv420FromRgb, frame_of
from .segments import (
    Segment,
    clear_segments,
    list_segments,
    put_aside,
    segment_path,
    segment_tag,
)
from .unfinished import SUFFIX as PICTURES_SUFFIX
from .unfinished import UnfinishedPictures, count_pictures

UNFINISHED = "unfinished.mp4"


class SegmentWriter:
    """Encodes frames as they come into segments, which the caller ends with `commit`.

    Every segment has a fresh encoder that begins with a keyframe. So if the caller commits at the
    same frames, a run that was interrupted and resumed gives the same pictures as one that was not.

    Opening a folder again finds its complete segments; what came after the first gap is put aside,
    and a segment that a crash left unfinished is deleted. Used as a context manager, leaving it
    abandons the segment in progress: only `commit` and `pause` keep frames.

    Args:
        folder: for this video's segments only; created if missing.
        encoding: how frames are encoded.
        width, height: pixels of the images.
        time_base: seconds per tick. Times are rounded to it; a reader's are whole ticks of its own.
        frame_rate: average, for the encoder's rate control.
        sample_aspect_ratio: width to height of a pixel.
        keep_pictures: keep those of the segment in progress without loss, for `pause`.

    Attributes:
        segments: complete ones, in order.
        unfinished: (time, duration) of each frame of the segment in progress, in seconds.
        set_aside: segments that were found, but cannot be used.

    Raises:
        VideoError: the folder holds segments of another size, time base or encoding.
        OSError: a segment cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        encoding: Encoding,
        width: int,
        height: int,
        time_base: Fraction,
        *,
        frame_rate: Fraction = Fraction(24),
        sample_aspect_ratio: Fraction = Fraction(1),
        keep_pictures: bool = False,
    ) -> None:
        """Find the complete segments."""
        self.folder, self._encoding, self._size = folder, encoding, (width, height)
        self._time_base, self._frame_rate, self._aspect = time_base, frame_rate, sample_aspect_ratio
        self._key = (
            f"{width}x{height} {encoding.key} time_base={time_base} rate={frame_rate} "
            f"aspect={sample_aspect_ratio}"
        )
        self._to_frame = frame_of if encoding.codec == "lossless" else Yuv420FromRgb()
        self._output: VideoOutput | None = None
        self._keep_pictures = keep_pictures
        self._pictures: UnfinishedPictures | None = None
        self.unfinished: list[tuple[Fraction, Fraction]] = []
        self._last_ticks = -1
        self.segments: list[Segment] = list_segments(folder)
        for segment in self.segments:
            if segment.key != self._key:
                raise VideoError(
                    f"{segment.path} was written with other settings ({segment.key}, now "
                    f"{self._key}). Delete the folder to begin again."
                )
        self.set_aside = clear_segments(folder, self.segments)
        self.abandon()

    @property
    def frames_safe(self) -> int:
        """Frames in complete segments."""
        return self.segments[-1].stop_frame if self.segments else 0

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self.abandon()

    def write(self, image: Image, time: Fraction, duration: Fraction) -> None:
        """Encode the next frame.

        Args:
            image: uint8 [H, W, 3], RGB.
            time: seconds at which it is shown; later than the frame before.
            duration: seconds; counts for the last frame of the video.

        Raises:
            DiskFullError: no space left; the frames of complete segments are safe.
            VideoWriteError: the file cannot be written for another reason.
            ValueError: wrong shape, or the time does not increase.
        """
        expected = (self._size[1], self._size[0], 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ValueError(f"Expected uint8 {expected}, got {image.dtype} {image.shape}.")
        ticks = self._ticks(time)
        if ticks <= self._last_ticks:
            raise ValueError(
                f"Frame {self.next_frame} is at {float(time):.6f} s, the one before at "
                f"{float(self._last_ticks * self._time_base):.6f} s: times must increase."
            )
        lasts = max(1, self._ticks(duration))
        with self._writing(self._output or self._begin(ticks)) as container:
            if self._pictures is not None:
                self._pictures.write(np.ascontiguousarray(image))
            frame = self._to_frame(self._padded(image))
            frame.pts, frame.time_base = ticks - self._first_ticks, self._time_base
            self._lengths[frame.pts] = lasts
            self._encode(frame, container)
        self._last_ticks, self._last_end = ticks, ticks + lasts
        self.next_frame += 1
        self.unfinished.append((time, duration))

    def commit(self) -> Segment | None:
        """End the segment in progress: once this returns, its frames survive a crash.

        Returns:
            The segment, or None if no frame was written since the last one.

        Raises:
            DiskFullError, VideoWriteError: as in `write`.
        """
        if self._output is None:
            return None
        segment = self._close(self._output)
        self._forget_unfinished()
        self.segments.append(segment)
        return segment

    def pause(self) -> Segment | None:
        """End the segment in progress before its time, as a file that is no segment of the video.

        The pictures of `unfinished` stay in `pictures_path`, for a later run to `write` them anew;
        where they cannot be kept, there is no such file. Nothing can be written any more.

        Returns:
            What was in progress, playable; None if there was nothing.

        Raises:
            DiskFullError, VideoWriteError: as in `write`; pictures may have been kept nevertheless.
        """
        self._end_pictures()
        if self._output is None:
            return None
        segment = self._close(self._output)
        path = self.folder / UNFINISHED
        segment.path.replace(path)
        sync_folder(self.folder)
        return replace(segment, path=path)

    @property
    def pictures_path(self) -> Path:
        """The file with the pictures of a segment that `pause` ended."""
        return self.folder / f"pictures{PICTURES_SUFFIX}"

    def _end_pictures(self) -> None:
        """Complete the file of pictures, or delete it if it does not hold all of them."""
        pictures, self._pictures = self._pictures, None
        if pictures is None:
            return
        try:
            pictures.close()
            complete = count_pictures(pictures.path) >= len(self.unfinished) > 0
        except (av.error.FFmpegError, OSError):
            complete = False
        if not complete:
            pictures.drop()

    def _close(self, output: VideoOutput) -> Segment:
        """Complete the file of the segment in progress."""
        first = self.frames_safe
        with self._writing(output) as container:
            self._encode(None, container)
            output.commit()
        self._output = None
        return Segment(
            path=segment_path(self.folder, first),
            first_frame=first,
            frames=self.next_frame - first,
            start=self._first_ticks * self._time_base,
            end=self._last_end * self._time_base,
            key=self._key,
        )

    def _forget_unfinished(self) -> None:
        if self._pictures is not None:
            self._pictures.drop()
            self._pictures = None
        self.unfinished = []

    def abandon(self) -> None:
        """Drop the segment in progress; the next frame is the first behind the complete ones."""
        if self._output is not None:
            self._output.abandon()
            self._output = None
        self._forget_unfinished()
        self.next_frame = self.frames_safe
        self._last_ticks = -1
        if self.segments:
            # Segments do not state when the last frame began, but every frame lasts a tick.
            last = self.segments[-1]
            self._last_ticks = self._ticks(last.start) + last.frames - 1

    def keep_until(self, frame: int) -> int:
        """Put all segments aside that hold frames from `frame` on: the caller's state is older.

        Returns:
            Frames that are left, at most `frame`.
        """
        self.abandon()
        self.segments = [segment for segment in self.segments if segment.stop_frame <= frame]
        self.set_aside += clear_segments(self.folder, self.segments)
        self.abandon()
        return self.frames_safe

    def _ticks(self, seconds: Fraction) -> int:
        return round(seconds / self._time_base)

    @contextmanager
    def _writing(self, output: VideoOutput) -> Iterator[OutputContainer]:
        """Abandon the segment in progress if the block cannot write; its pictures are kept."""
        try:
            with output.writing():
                yield output.container
        except VideoWriteError:
            if not self._keep_pictures:
                self.abandon()
            output.abandon()
            self._output = None
            raise

    def _begin(self, ticks: int) -> VideoOutput:
        """Open the next segment, whose first frame is at `ticks`."""
        first = self.frames_safe
        self._first_ticks = ticks
        if self._keep_pictures:
            self._pictures = self._open_pictures()
        output = VideoOutput(
            segment_path(self.folder, first),
            segment_tag(first, ticks * self._time_base, self._key),
            time_base_denominator=self._time_base.denominator,
            frames_safe=first,
            folder=self.folder,
        )
        self._stream = self._encoding.add_stream(
            output.container, self._size, self._time_base, self._frame_rate, self._aspect
        )
        self._lengths: dict[int, int] = {}
        self._output = output
        return output

    def _open_pictures(self) -> UnfinishedPictures:
        try:
            if self.pictures_path.is_dir():
                put_aside(self.pictures_path)
            return UnfinishedPictures(self.pictures_path, *self._size)
        except (av.error.FFmpegError, OSError) as error:
            message = f"{self.pictures_path.name} cannot be written ({error})."
            raise VideoWriteError(message, self.frames_safe, self.folder) from error

    def _padded(self, image: Image) -> Image:
        """Repeat the last row or column where the encoder's pictures are larger; contiguous."""
        down, across = self._stream.height - image.shape[0], self._stream.width - image.shape[1]
        if down or across:
            image = np.pad(image, ((0, down), (0, across), (0, 0)), mode="edge")
        return np.ascontiguousarray(image)

    def _encode(self, frame: VideoFrame | None, container: OutputContainer) -> None:
        """Encode `frame`, or flush the encoder, and write what comes out."""
        for packet in self._stream.encode(frame):
            # No difference of times gives the duration of the last frame.
            assert packet.pts is not None
            packet.duration = self._lengths.pop(packet.pts)
            container.mux(packet)
