"""A recording rendered again: a stream of pictures whose settings change where they did live."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..run.notices import Notices
from ..run.opened import OpenStream
from ..run.picture_stream import StreamCounts
from ..run.saved_stream import SavedStream
from ..run.spec import StreamSpec
from ..run.stage_times import StageSeconds
from ..run.state_file import differences, normalised
from ..run.translator import FrameTranslator
from ..stream.state import State, in_order, integers, join, numbered, part
from ..stream.transfer import HostCopy
from .boundary import Boundary
from .loaded_recording import LoadedRecording
from .settings import PROMPTS, LiveSettings

# No frame inside a stream is older than this, even where most frames are skipped.
_OLDEST = 1024


class RecordedModels:
    """The models of a recording, opened for the settings of its present frame."""

    def __init__(self, latent_size: tuple[int, int], spec: StreamSpec) -> None:
        """Begin with a specification; nothing is loaded yet."""
        self._latent_size, self._spec = latent_size, spec
        self.now = spec.open(latent_size, None)

    def __enter__(self) -> RecordedModels:
        """Load the models."""
        self.now.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Release the models."""
        self.now.__exit__(*error)

    def use(self, spec: StreamSpec) -> bool:
        """Open them for another specification; return whether it is another one."""
        if spec is self._spec:
            return False
        self.now.__exit__(None, None, None)
        self._spec, self.now = spec, spec.open(self._latent_size, None)
        self.now.__enter__()
        return True

    @property
    def device(self) -> torch.device:
        """The device of the stream's state."""
        return self.now.device

    @property
    def state_bytes(self) -> int:
        """Bytes that one saved state takes at most."""
        return self.now.state_bytes


@dataclass(frozen=True)
class RecordedSpec:
    """What a recording is rendered with.

    Attributes:
        inputs: the arguments of `StreamSpec.from_inputs` that the node was given.
        recording: the recording.
        size: width and height of the frames now.
    """

    inputs: Mapping[str, Any]
    recording: LoadedRecording
    size: tuple[int, int]

    @cached_property
    def differing(self) -> str:
        """What is other than when it was recorded; empty where all is as it was."""
        spec = self.recording.begin(self.inputs, with_state=True).spec
        size = "x".join(map(str, self.size))
        own = normalised({"size": size, **spec.identity(), **spec.layout_identity()})
        return differences(self.recording.facts["identity"], own)

    @property
    def with_state(self) -> bool:
        """Whether the stream goes on from the recording's state."""
        return self.recording.state is not None and not self.differing

    @cached_property
    def settings(self) -> LiveSettings:
        """The settings of the first frame."""
        return self.recording.begin(self.inputs, self.with_state)

    def identity(self) -> dict[str, Any]:
        """Name what cannot change without starting over."""
        return {**self.settings.spec.identity(), "recording": self.recording.identity()}

    def content_identity(self) -> dict[str, Any]:
        """Name everything else that determines the result."""
        return self.settings.spec.content_identity()

    def start_translator(self, eight_bit: bool = False) -> RecordedStream:
        """Start the stream."""
        return RecordedStream(self, eight_bit)

    def open(self, latent_size: tuple[int, int], frames: int | None) -> RecordedModels:
        """Return the models as a context manager."""
        return RecordedModels(latent_size, self.settings.spec)


class RecordedStream:
    """A `PictureStream` that crosses the boundaries of a recording as the live stream did.

    Attributes:
        frames_in: frames that have entered.
    """

    def __init__(self, spec: RecordedSpec, eight_bit: bool) -> None:
        """Start before the first frame."""
        self._spec, self._eight_bit, self._notices = spec, eight_bit, Notices()
        self.seconds = StageSeconds()
        self.reset()

    def reset(self) -> None:
        """Start over with frame 0."""
        self.frames_in, self._settings = 0, self._spec.settings
        # The recording's frame at which the present stream has its frame 0.
        self._base = -self._spec.recording.facts["first"] if self._spec.with_state else 0
        self._crossed = False
        self._waiting: list[HostCopy] = []
        # Pictures of frames before the recording, which come out first.
        self._foreign = 0
        self._begun = False
        self._start()

    def _start(self) -> None:
        self._translator = self._settings.spec.start_translator(self._eight_bit)
        self._translator.notices, self._translator.seconds = self._notices, self.seconds

    @property
    def notices(self) -> Notices:
        """Told of what changes on the way."""
        return self._notices

    @notices.setter
    def notices(self, notices: Notices) -> None:
        self._notices = self._translator.notices = notices
        if self._spec.differing and self._spec.recording.as_recorded:
            notices.warn(
                f"the recording was made with other settings: {self._spec.differing}. What comes "
                "out is not what was seen."
            )

    def open(self, opened: RecordedModels) -> None:
        """Prepare for the opened models."""
        opened.use(self._settings.spec)
        if self._spec.with_state and not self._begun and not self.frames_in:
            self._load_beginning(opened.now)
        self._begun = True
        self._translator.open(opened.now)

    def push(self, opened: RecordedModels, picture: Tensor) -> list[HostCopy]:
        """Push a frame, after the changes before it; return finished ones."""
        if not self._crossed:
            self._cross(opened)
            self._crossed = True
        finished = self._translator.push(opened.now, picture)
        self.frames_in += 1
        self._crossed = False
        return self._own([*self._taken(), *finished])

    def finish(self, opened: RecordedModels) -> list[HostCopy]:
        """Return finished frames that no call has returned, because of an error."""
        return self._own([*self._taken(), *self._translator.finish(opened.now)])

    def drain(self, opened: RecordedModels) -> Iterator[HostCopy]:
        """End the stream and yield the frames still inside."""
        yield from self._own(self._taken())
        for picture in self._translator.drain(opened.now):
            yield from self._own([picture])

    def tell_at_end(self, opened: RecordedModels) -> None:
        """Warn of what the stream's settings name and its frames did not reach."""
        self._translator.tell_at_end(opened.now)

    def state_dict(self) -> State:
        """Return everything that determines how the stream continues."""
        counters = [self.frames_in, int(self._crossed), self._foreign]
        return {
            "recorded": torch.tensor(counters),
            **join(
                translator=self._translator.state_dict(),
                waiting=numbered([picture.get() for picture in self._waiting]),
            ),
        }

    def count_state(self, state: Mapping[str, Tensor]) -> StreamCounts:
        """Check what `state_dict` returned, and count its frames.

        Raises:
            ValueError: it is damaged.
        """
        frames, _, foreign = integers(state, "recorded", 3)
        inside = FrameTranslator.count_state(part(state, "translator")).inside
        return StreamCounts(frames, inside + len(in_order(part(state, "waiting"))) - foreign)

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned; then open it again.

        Raises:
            ValueError: it is damaged.
        """
        self.count_state(state)
        self.reset()
        frames, crossed, foreign = integers(state, "recorded", 3)
        # The settings follow from the frame alone.
        for frame in range(frames + crossed):
            boundary, self._settings = self._settings_after(frame)
            self._base = frame if boundary.restarts else self._base
        self._start()
        self._translator.load_state_dict(part(state, "translator"), device)
        self.frames_in, self._crossed, self._foreign = frames, bool(crossed), foreign
        self._waiting = [HostCopy(picture) for picture in in_order(part(state, "waiting"))]
        self._begun = True

    def _cross(self, opened: RecordedModels) -> None:
        """Make the changes before the next frame, as the live stream did."""
        if not self._spec.recording.changes(self.frames_in):
            return
        boundary, settings = self._settings_after(self.frames_in)
        self._waiting += boundary.finish(self._translator, opened.now)
        self._settings = settings
        if boundary.restarts:
            self._base = self.frames_in
            self._start()
        else:
            boundary.carry(self._translator, settings)
        if opened.use(settings.spec) or boundary.restarts:
            self._translator.open(opened.now)

    def _settings_after(self, frame: int) -> tuple[Boundary, LiveSettings]:
        """Return what changes before a frame of the recording, and the settings from then on."""
        before = after = self._settings
        changes = self._spec.recording.changes(frame)
        for change, _ in changes:
            if change.control not in PROMPTS:
                after = after.changed(change)
        cut = any(change.control == "cut" for change, _ in changes)
        boundary = Boundary(before, after, cut)
        own = 0 if boundary.restarts else frame - self._base
        after = boundary.settings
        for change, text in changes:
            if change.control in PROMPTS:
                after = after.with_prompt(change, text, own, max(own - _OLDEST, 0))
        return boundary, after

    def _load_beginning(self, opened: OpenStream) -> None:
        """Go on from the stream that was running when the recording began."""
        path = self._spec.recording.state
        assert path is not None
        saved = SavedStream.read("recording", path)
        self._translator.load_state_dict(part(saved.state, "translator"), opened.device)
        self._foreign = FrameTranslator.count_state(part(saved.state, "translator")).inside

    def _taken(self) -> list[HostCopy]:
        pictures, self._waiting = self._waiting, []
        return pictures

    def _own(self, pictures: list[HostCopy]) -> list[HostCopy]:
        """Leave out the pictures of frames before the recording."""
        foreign = min(self._foreign, len(pictures))
        self._foreign -= foreign
        return pictures[foreign:]
