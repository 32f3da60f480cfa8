"""One run of Stream Video: what it opens, where its partial results lie, how it goes on."""

import logging
import shutil
import time
import uuid
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
from PIL import Image
from torch import Tensor

from ..live2diff_core.depth.model import DepthModel, resize_depth
from ..live2diff_core.host.checks import check_depth
from ..live2diff_core.host.model import HostModel
from ..live2diff_core.host.vae import FrameVAE
from ..live2diff_core.run.file import VideoTranslation
from ..live2diff_core.run.start import start_session
from ..live2diff_core.run.state_file import StateFileError, fingerprint, load_state, save_state
from ..live2diff_core.run.translator import FrameTranslator
from ..live2diff_core.stream.guidance import Guidance
from ..live2diff_core.stream.schedule import ConsistencySchedule
from ..live2diff_core.stream.similar_frames import SkipRule
from ..live2diff_core.video.frame_size import SizeMode, plan_frame_size
from ..live2diff_core.video.reader import VideoReader
from ..live2diff_core.video.writer import (
    Encoding,
    SegmentWriter,
    VideoError,
    assemble,
    container_for,
)
from .node_text import show_text
from .video_identity import run_settings, source_identity

PARTIAL_FOLDER = "live2diff_partial"
STATE_FILE = "stream.safetensors"
PREVIEW_SECONDS, PREVIEW_PIXELS = 0.5, 512
FRAMES_PER_SKIP = 100


@dataclass(frozen=True)
class VideoInputs:
    """What the node was given, apart from the video.

    Attributes:
        model, vae, positive, negative: the host's objects.
        depth_model: None streams without depth.
        schedule: noise levels.
        seed: of noise and random decisions.
        guidance: scale and mode.
        shared_noise: one noise for all frames.
        frame_filter: which frames are skipped; None skips none.
        size: (mode, width, height), see `plan_frame_size`.
        encoder: how to encode.
        checkpoint_every: frames between two saved states; 0 saves none.
    """

    model: Any
    vae: Any
    positive: Any
    negative: Any
    depth_model: DepthModel | None
    schedule: ConsistencySchedule
    seed: int
    guidance: Guidance
    shared_noise: bool
    frame_filter: SkipRule | None
    size: tuple[SizeMode, int, int]
    encoder: Encoding
    checkpoint_every: int


class VideoJob:
    """One run of the node."""

    def __init__(self, reader: VideoReader, inputs: VideoInputs, node_id: str | None) -> None:
        """Check everything that can be checked before models are loaded."""
        self._reader, self._inputs, self._node_id = reader, inputs, node_id
        mode, width, height = inputs.size
        self._plan = plan_frame_size(reader.info.width, reader.info.height, mode, width, height)
        self._depth = inputs.depth_model
        if self._depth is not None:
            check_depth(inputs.model)
        self._vae = FrameVAE(inputs.vae)
        logging.info("Live2Diff: video of %s", self._plan)

    def run(
        self, source: str | BytesIO, start: float, duration: float, upstream: str = "unknown"
    ) -> Path:
        """Translate, join the segments with the sound, and clean up; the result's path.

        Args:
            source: the video.
            start, duration: seconds that it is trimmed to; 0 and 0 are all of it.
            upstream: name of what the inputs are made from, see `upstream_identity`.
        """
        settings = {
            **run_settings(self._inputs),
            "made from": upstream,
            "video": source_identity(source),
            "trim": [start, duration],
            "clock": str(self._reader.info.time_base),
            "size": str(self._plan),
            "encoder": self._inputs.encoder.key,
        }
        folder = Path(folder_paths.get_output_directory(), PARTIAL_FOLDER, fingerprint(settings))
        folder.mkdir(parents=True, exist_ok=True)
        width, height = self._plan.size
        info = self._reader.info
        with SegmentWriter(
            folder,
            self._inputs.encoder,
            width,
            height,
            info.time_base,
            frame_rate=info.frame_rate,
            sample_aspect_ratio=info.sample_aspect_ratio,
        ) as writer:
            try:
                self._translate(writer, folder / STATE_FILE, settings)
            except BaseException:
                self._keep_partial(writer, folder, source, start, duration)
                raise
        result = _result_path(container_for(source))
        assemble(writer.segments, result, audio_from=source, start=start, duration=duration)
        # What cannot be removed now (a virus scanner has it open, say) does no harm.
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _translate(self, writer: SegmentWriter, state: Path, settings: dict) -> None:
        inputs = self._inputs
        session = start_session(
            inputs.model, inputs.schedule, inputs.seed, inputs.guidance, inputs.shared_noise
        )
        translator = FrameTranslator(session, inputs.seed)
        with self._host() as host:
            if self._depth is not None:
                # Its layers cannot be streamed in piece by piece.
                self._depth.load()
            translator.attach(host, self._vae, self._depth, resize_depth, inputs.frame_filter)
            translation = VideoTranslation(
                self._reader,
                self._plan.apply,
                translator,
                writer,
                inputs.checkpoint_every,
                lambda tensors: save_state(state, tensors, settings),
                RunProgress(self._node_id, self._reader.info.frame_count),
            )
            self._resume(translation, writer, state, settings)
            translation.run()

    def _host(self) -> HostModel:
        inputs, (width, height) = self._inputs, self._plan.size
        companions, working = [self._vae.patcher], self._vae.working_bytes(height, width)
        if self._depth is not None:
            companions.append(self._depth.patcher)
            working = max(working, self._depth.working_bytes)
        return HostModel(
            inputs.model,
            inputs.positive,
            inputs.negative,
            inputs.guidance,
            inputs.schedule,
            (height // 8, width // 8),
            frames=None,
            companions=companions,
            companion_bytes=working,
        )

    def _resume(
        self, translation: VideoTranslation, writer: SegmentWriter, path: Path, settings: dict
    ) -> None:
        """Go on from the last checkpoint, if there is one and its frames are there."""
        session = translation.translator.session
        if path.is_file():
            try:
                translation.load_state_dict(load_state(path, settings))
            except StateFileError as error:
                logging.warning("Live2Diff: starting over, %s", error)
        if writer.keep_until(session.frames_out) != session.frames_out:
            logging.warning("Live2Diff: starting over, frames of the last run are missing.")
            writer.keep_until(0)
            translation.restart()
        if session.frames_in:
            logging.info("Live2Diff: going on at frame %d.", session.frames_in)
            self._skip(session.frames_in)

    def _skip(self, frame: int) -> None:
        """Bring the reader to a frame. That may take minutes, so it can be watched and stopped."""
        for reached in range(0, frame, FRAMES_PER_SKIP):
            comfy.model_management.throw_exception_if_processing_interrupted()
            show_text(self._node_id, f"Going on at frame {frame}: finding it, {reached} read")
            self._reader.skip(reached)
        self._reader.skip(frame)

    def _keep_partial(
        self,
        writer: SegmentWriter,
        folder: Path,
        source: str | BytesIO,
        start: float,
        duration: float,
    ) -> None:
        """Leave what is done as one playable file and say where."""
        if not writer.segments:
            return
        partial = folder / f"partial{container_for(source)}"
        sound = {"audio_from": source, "start": start, "duration": duration}
        try:
            assemble(writer.segments, partial, **sound, complete=False)
        except (VideoError, OSError) as error:
            partial = folder
            logging.warning("Live2Diff: the parts could not be joined: %s", error)
        logging.warning(
            "Live2Diff: stopped after %d frames, which are in %s. Queue the same inputs again to "
            "go on.",
            writer.frames_safe,
            partial,
        )


class RunProgress:
    """Progress bar, time left and a picture of the current frame."""

    def __init__(self, node_id: str | None, frames: int | None) -> None:
        """`frames` is an estimate; None if nobody knows."""
        self._node_id, self._frames = node_id, frames
        self._bar = comfy.utils.ProgressBar(frames or 1)
        self._start = time.monotonic()
        self._first: int | None = None
        self._shown = self._start

    def __call__(self, done: int, picture: Tensor) -> None:
        """Show that `done` frames are finished, the last one being `picture` [H, W, 3]."""
        now = time.monotonic()
        if self._first is None:
            # The warm-up's frames come all at once; only after them is there a rate to tell.
            self._first, self._shown = done - 1, now
        total = max(self._frames or 0, done)
        preview = None
        if now - self._shown >= PREVIEW_SECONDS or done == self._frames:
            self._shown = now
            image = Image.fromarray(picture.mul(255).clamp(0, 255).byte().numpy())
            preview = ("JPEG", image, min(PREVIEW_PIXELS, max(image.size)))
            show_text(self._node_id, self._text(done, total, now - self._start))
        self._bar.update_absolute(done, total, preview)

    def _text(self, done: int, total: int, seconds: float) -> str:
        rate = (done - (self._first or 0)) / max(seconds, 1e-6)
        left = "" if self._frames is None else f", {_clock((total - done) / rate)} left"
        return f"Frame {done} of {self._frames or 'an unknown number'}, {rate:.2f} fps{left}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _result_path(suffix: str) -> Path:
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"live2diff_{uuid.uuid4().hex[:12]}{suffix}"
