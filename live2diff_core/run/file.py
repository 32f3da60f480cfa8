"""One run of Stream Video, from file to file; a stopped run can be resumed."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from ..host.identity import file_identity, json_digest
from ..stream.transfer import HostCopy
from ..video.encoder import Encoding
from ..video.frame import VideoError
from ..video.frame_size import FrameSizePlan
from ..video.reader import VideoReader
from ..video.segments import assemble
from ..video.sound import container_for
from ..video.writer import SegmentWriter
from .spec import StreamSpec
from .stages import VideoTranslation
from .state_file import StateFileError, load_state, normalised, read_identity, save_state

PARTIAL_FOLDER = "live2diff_partial"
STATE_FILE = "stream.safetensors"
FRAMES_PER_SKIP = 100


class Progress(Protocol):
    """Receives the progress of a run. Both methods may raise to stop it."""

    def __call__(self, done: int, picture: HostCopy) -> None:
        """Report that `done` frames are finished, the last one being `picture`: uint8 [H, W, 3]."""

    def finding(self, frame: int, reached: int) -> None:
        """Report that a resumed run skips to frame `frame` and has read `reached` frames."""


@dataclass(frozen=True)
class VideoRun:
    """The checked inputs of Stream Video.

    Attributes:
        spec: the stream's specification.
        reader: the opened video.
        source: the video itself, for its identity and its audio.
        trim: (start, duration) in seconds; (0, 0) is the whole video.
        size: how frames are scaled to the stream's size.
        encoding: how frames are encoded.
        checkpoint_every: frames between two saved states; 0 saves none.
        made_from: name of the graph above the node, see `graph_identity`.
    """

    spec: StreamSpec
    reader: VideoReader
    source: str | BytesIO
    trim: tuple[float, float]
    size: FrameSizePlan
    encoding: Encoding
    checkpoint_every: int
    made_from: str

    def identity(self) -> dict[str, Any]:
        """Name everything that determines the result: JSON values by title."""
        return {
            **self.spec.identity(),
            **self.spec.content_identity(),
            "checkpoint every": self.checkpoint_every,
            "made from": self.made_from,
            "video": file_identity(self.source),
            "trim": list(self.trim),
            "clock": str(self.reader.info.time_base),
            "size": str(self.size),
            "encoder": self.encoding.key,
        }

    def run(self, output_folder: Path, result: Path, progress: Progress) -> Path:
        """Translate, join the segments with the audio, and delete the partial folder.

        Args:
            output_folder: the folder that holds the folder of partial results.
            result: path of the video to write, without a suffix.
            progress: called for every frame.

        Returns:
            The path written.
        """
        logging.info("Live2Diff: video of %s", self.size)
        identity = self.identity()
        folder = partial_folder(output_folder / PARTIAL_FOLDER, identity)
        folder.mkdir(parents=True, exist_ok=True)
        info = self.reader.info
        with SegmentWriter(
            folder,
            self.encoding,
            *self.size.size,
            info.time_base,
            frame_rate=info.frame_rate,
            sample_aspect_ratio=info.sample_aspect_ratio,
        ) as writer:
            try:
                self._translate(writer, folder / STATE_FILE, identity, progress)
            except BaseException:
                self._keep_partial(writer, folder)
                raise
        result = result.with_suffix(container_for(self.source))
        self._assemble(writer, result)
        # Files that cannot be removed now (because a virus scanner reads them, say) do no harm.
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _translate(
        self, writer: SegmentWriter, state: Path, identity: dict[str, Any], progress: Progress
    ) -> None:
        width, height = self.size.size
        translator = self.spec.start_translator(eight_bit=True)
        with self.spec.open((height // 8, width // 8), frames=None) as opened:
            translation = VideoTranslation(
                self.reader,
                self.size.apply,
                translator,
                opened,
                writer,
                self.checkpoint_every,
                lambda tensors: save_state(state, tensors, identity),
                progress,
            )
            self._resume(translation, state, identity, progress)
            translation.run()

    def _resume(
        self,
        translation: VideoTranslation,
        state: Path,
        identity: dict[str, Any],
        progress: Progress,
    ) -> None:
        """Resume from the last saved state, if there is one and its frames exist."""
        session, writer = translation.translator.session, translation.writer
        if state.is_file():
            try:
                translation.load_state_dict(load_state(state, identity))
            except StateFileError as error:
                logging.warning("Live2Diff: starting over, %s", error)
        if writer.keep_until(session.frames_out) != session.frames_out:
            logging.warning("Live2Diff: starting over, frames of the last run are missing.")
            writer.keep_until(0)
            translation.restart()
        if session.frames_in:
            logging.info("Live2Diff: going on at frame %d.", session.frames_in)
            # Skipping may take minutes, so it reports progress and can be stopped.
            for reached in range(0, session.frames_in, FRAMES_PER_SKIP):
                progress.finding(session.frames_in, reached)
                self.reader.skip(reached)
            self.reader.skip(session.frames_in)

    def _keep_partial(self, writer: SegmentWriter, folder: Path) -> None:
        """Join the finished frames into one playable file, and log its path."""
        if not writer.segments:
            return
        partial = folder / f"partial{container_for(self.source)}"
        try:
            self._assemble(writer, partial, complete=False)
        except (VideoError, OSError) as error:
            partial = folder
            logging.warning("Live2Diff: the parts could not be joined: %s", error)
        logging.warning(
            "Live2Diff: stopped after %d frames, which are in %s. Queue the same inputs again to "
            "go on.",
            writer.frames_safe,
            partial,
        )

    def _assemble(self, writer: SegmentWriter, path: Path, complete: bool = True) -> None:
        start, duration = self.trim
        assemble(
            writer.segments,
            path,
            audio_from=self.source,
            start=start,
            duration=duration,
            complete=complete,
        )


def partial_folder(root: Path, identity: Mapping[str, Any]) -> Path:
    """Return the folder of a stopped run with this identity, or that of a new one."""
    for state in sorted(root.glob(f"*/{STATE_FILE}")):
        try:
            if read_identity(state, identity) == normalised(identity):
                return state.parent
        except StateFileError:
            continue  # Only its own run needs it, and reports the error.
    return root / json_digest(identity)
