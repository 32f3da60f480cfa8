"""One run that makes a video, into a file; a stopped run can be resumed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from ..host.identity import file_identity
from ..stream.transfer import HostCopy
from ..video.container import name_of
from ..video.encoder import Encoding
from ..video.reader import VideoReader
from ..video.segments import Segment, assemble, put_aside
from ..video.sound import container_for
from ..video.unfinished import count_pictures
from ..video.writer import SegmentWriter
from .disk import check_disk
from .input_warnings import with_warnings
from .notices import Notices
from .partial_folder import PartialFolder
from .partial_folders import PARTIAL_FOLDER, folder_of
from .picture_stream import FrameSize, PictureSpec
from .resuming import VideoResumption
from .saving import StateSaver
from .stages import VideoTranslation

FRAMES_PER_SKIP = 100


class Progress(Protocol):
    """Receives the progress of a run. Both methods may raise to stop it."""

    def __call__(self, done: int, picture: HostCopy) -> None:
        """Report that `done` frames are finished, the last one being `picture`: uint8 [H, W, 3]."""

    def finding(self, frame: int, reached: int) -> None:
        """Report that a resumed run skips to frame `frame` and has read `reached` frames."""


@dataclass(frozen=True)
class VideoRun:
    """The checked inputs of Stream Video, and of the nodes that make long videos.

    Attributes:
        spec: the stream's specification.
        reader: the opened video.
        source: the video itself, for its identity and its audio; None without one.
        trim: (start, duration) in seconds; (0, 0) is the whole video.
        size: how frames are scaled to the stream's size.
        encoding: how frames are encoded.
        checkpoint_every: frames of a segment, after which a state may be saved; 0 saves none.
        made_from: name of the graph above the node, see `graph_identity`.
        save_seconds: least time between two saved states.
        notices: takes the warnings of the run, those of the reader among them.
    """

    spec: PictureSpec
    reader: VideoReader
    source: str | BytesIO | None
    trim: tuple[float, float]
    size: FrameSize
    encoding: Encoding
    checkpoint_every: int
    made_from: str
    save_seconds: float = 300.0
    notices: Notices = field(default_factory=Notices)

    def identity(self) -> dict[str, Any]:
        """Name everything that determines the result: JSON values by title."""
        return {
            **self.spec.identity(),
            **self.spec.content_identity(),
            "checkpoint every": self.checkpoint_every,
            "made from": self.made_from,
            "video": "none" if self.source is None else file_identity(self.source),
            "trim": list(self.trim),
            "clock": str(self.reader.info.time_base),
            "size": str(self.size),
            "encoder": self.encoding.key,
        }

    def run(self, output_folder: Path, progress: Progress) -> Path:
        """Translate, and join the segments with the audio.

        Args:
            output_folder: the folder that holds the folder of partial results.
            progress: called for every frame.

        Returns:
            The path of the result, in its partial folder, whose other files are gone. It is for the
            caller to delete it, when it has been used.

        Raises:
            PartialFolderError: the partial folder cannot be used.
        """
        folder = folder_of(output_folder / PARTIAL_FOLDER, self.identity(), self.notices.warn)
        with folder.held():
            found = folder.result()
            if found is not None and not count_pictures(found, most=1):
                aside = put_aside(found)
                self.notices.warn(
                    f"the result was damaged, and is kept as {aside} until a new one is saved."
                )
                found = None
            if found is not None:
                logging.info("Live2Diff: the result of the same inputs was kept: %s.", found)
                return found
            return self._run(folder, progress)

    def _run(self, folder: PartialFolder, progress: Progress) -> Path:
        logging.info("Live2Diff: video of %s", self.size)
        width, height = self.size.size
        translator = self.spec.start_translator(eight_bit=True)
        opened = self.spec.open((height // 8, width // 8), frames=None)
        folder.create(self._name)
        self._check_disk(folder, opened.state_bytes)
        with self._writer(folder) as writer:
            translation = VideoTranslation(
                with_warnings(self.reader, self.notices),
                self.size.apply,
                translator,
                opened,
                writer,
                self.checkpoint_every,
                on_frame=progress,
                saver=self._saver(folder),
                notices=self.notices,
            )
            suffix = container_for(self.source)
            resumption = VideoResumption(
                folder, translation, self.notices, partial(self._assemble, complete=False), suffix
            )
            self._translate(translation, resumption, progress)
            result = folder.result_path(suffix)
            with _stopping(resumption):
                self._assemble(result, writer.segments)
        folder.finish()
        return result

    @property
    def _name(self) -> str:
        """What the list of partial results calls the video."""
        return "a new video" if self.source is None else Path(name_of(self.source)).name

    def _translate(
        self, translation: VideoTranslation, resumption: VideoResumption, progress: Progress
    ) -> None:
        # The models are closed before the state is written, which may take a while.
        with ExitStack() as stack, translation.opened:
            self._skip(resumption.resume(), progress)
            stack.enter_context(_stopping(resumption))
            translation.run()

    def _assemble(self, path: Path, segments: Sequence[Segment], complete: bool = True) -> None:
        start, duration = self.trim
        assemble(
            segments,
            path,
            audio_from=self.source,
            start=start,
            duration=duration,
            complete=complete,
            warn=self.notices.warn,
        )

    def _check_disk(self, folder: PartialFolder, state_bytes: int) -> None:
        check_disk(
            folder.path,
            state_bytes if self.checkpoint_every else 0,
            self.size.size,
            self.reader.info.frame_count,
            self.encoding,
            self.checkpoint_every,
            self.notices,
        )

    def _saver(self, folder: PartialFolder) -> StateSaver | None:
        if not self.checkpoint_every:
            return None
        return StateSaver(folder.save, self.save_seconds, self.notices)

    def _writer(self, folder: PartialFolder) -> SegmentWriter:
        info = self.reader.info
        return SegmentWriter(
            folder.path,
            self.encoding,
            *self.size.size,
            info.time_base,
            frame_rate=info.frame_rate,
            sample_aspect_ratio=info.sample_aspect_ratio,
            keep_pictures=bool(self.checkpoint_every),
        )

    def _skip(self, frame: int, progress: Progress) -> None:
        """Read on to `frame`; that may take minutes, so it reports progress and can be stopped."""
        for reached in range(0, frame, FRAMES_PER_SKIP):
            progress.finding(frame, reached)
            self.reader.skip(reached)
        self.reader.skip(frame)


@contextmanager
def _stopping(resumption: VideoResumption) -> Iterator[None]:
    """Save the run if the block raises anything."""
    try:
        yield
    except BaseException:
        resumption.stop()
        raise
