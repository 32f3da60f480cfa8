"""Opens a live stream by its name for its next frames: finds, loads, starts or starts over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ..host.control_hints import ControlHintError, HintFrames
from ..host.frame_conditions import FrameConditionError
from ..host.identity import prompt_identity
from ..stream.byte_size import format_bytes
from ..stream.state import StateError, require
from .live import LiveStream
from .opened import OpenStream
from .registry import StreamRegistry
from .saved_stream import SavedStream, check_live_state
from .spec import StreamSpec
from .state_file import StateFileError, damaged, differences, normalised

_PROMPT_CHANGED = "the prompt changed"


@dataclass(frozen=True)
class LiveOpening:
    """What a live stream is opened with.

    Attributes:
        node: the node's name, for messages.
        name: name of the stream.
        spec: the stream's specification.
        size: height and width of the frames.
        frames: how many come, which a ControlNet's images must match; 1 where one is for all.
        keep_cache: whether the stream continues when its prompts change.
        finish: whether it ends with these frames.
        max_idle_seconds: how long it may be idle; 0 is without limit.
        max_bytes: bytes that all live streams may hold; 0 is without limit.
    """

    node: str
    name: str
    spec: StreamSpec
    size: tuple[int, int]
    frames: int
    keep_cache: bool
    finish: bool
    max_idle_seconds: float
    max_bytes: int

    def identity(self) -> dict[str, Any]:
        """Name everything that cannot change without starting the stream over."""
        height, width = self.size
        own = self.spec.identity()
        return normalised({"size": f"{width}x{height}", **own, **self.spec.layout_identity()})

    def prompt_identity(self) -> str:
        """Name the texts of the prompts."""
        return prompt_identity([cond for conds in self.spec.prompts.values() for cond in conds])

    @contextmanager
    def open(self, streams: StreamRegistry) -> Iterator[tuple[LiveStream, OpenStream]]:
        """Hold the stream and its loaded models, for a `with` block that pushes frames.

        Raises:
            ValueError: no stream, or not this one, can take the inputs.
        """
        streams.drop_idle()
        prompt = self.prompt_identity()
        live, saved = self._find(streams, prompt)
        opened = self._open(live, saved)
        self._make_room(streams, live, opened)
        with streams.working_on(self.name), live.held_on(opened.device).in_use(), opened:
            live.follow_prompt(prompt)
            live.translator.similar.follow(self.spec.skip_rule)
            live.move(f"{opened.device} {self.spec.computes_in}", opened.device)
            with _file_named(saved):
                live.translator.open(opened)
            # Put only now, so that a saved stream stays until the models are loaded.
            streams.put(live, self.max_idle_seconds)
            try:
                yield live, opened
            finally:
                # Frames keep their control images until they are finished.
                live.hints = opened.model.hints_of(live.translator.session.frames_inside)
        if self.finish:
            streams.remove(self.name)

    def _make_room(self, streams: StreamRegistry, live: LiveStream, opened: OpenStream) -> None:
        needed = max(live.nbytes, opened.model.memory_bytes)
        if dropped := streams.make_room(self.name, needed, self.max_bytes):
            live.notices.warn(
                f"the live streams {', '.join(dropped)} were let go, because all streams together "
                f"may take {format_bytes(self.max_bytes)}. To keep them, raise max_total_gb.",
                key="room",
            )

    def _find(self, streams: StreamRegistry, prompt: str) -> tuple[LiveStream, SavedStream | None]:
        """Find the stream to continue, or start one; return it and the saved stream to load."""
        identity, found = self.identity(), streams.get(self.name)
        if isinstance(found, SavedStream):
            found.check(identity)
            kept = self.keep_cache or found.prompt == prompt
            note = f"goes on from {found.file_name}" if kept else _PROMPT_CHANGED
            live = self._start(identity, found.prompt if kept else prompt, note)
            live.source = found.source
            return live, found if kept else None
        if found is None:
            return self._start(identity, prompt, ""), None
        assert isinstance(found, LiveStream)
        reason = self._reason_to_start_over(found, identity, prompt)
        if not reason:
            return found, None
        logging.info("Live2Diff: the stream '%s' starts over: %s.", self.name, reason)
        by_prompt = reason == _PROMPT_CHANGED
        starts = found.starts.then(
            (found.identity, found.prompt if by_prompt else ""),
            (identity, prompt if by_prompt else ""),
        )
        # Free its caches before those of the new stream are allocated.
        streams.remove(self.name)
        live = self._start(identity, prompt, f"started over: {reason}")
        live.picture, live.source, live.starts = found.picture, found.source, starts
        if starts.returns > found.starts.returns:
            live.notices.warn(starts.warning(self.name, reason), key="settings")
        return live, None

    def _start(self, identity: dict[str, Any], prompt: str, note: str) -> LiveStream:
        return LiveStream(self.name, identity, prompt, self.spec.start_translator(), note=note)

    def _reason_to_start_over(self, live: LiveStream, identity: dict[str, Any], prompt: str) -> str:
        if differing := differences(live.identity, identity):
            return differing
        if live.translator.session.ended and not self.finish:
            return "it had been finished"
        if live.prompt != prompt and not self.keep_cache:
            return _PROMPT_CHANGED
        return ""

    def _open(self, live: LiveStream, saved: SavedStream | None) -> OpenStream:
        """Restore a saved stream, and open the models for the stream's next frames."""
        session, (height, width) = live.translator.session, self.size
        held = session.nbytes
        if saved is not None:
            # Its memories stay on the CPU until the model runs, so they are not held yet.
            with _file_named(saved):
                live.load_state_dict(saved.state, self.spec.model.load_device)
                self._check_shape(live, check_live_state(saved.state))
        try:
            return self.spec.open(
                (height // 8, width // 8),
                frames=1,
                hints=HintFrames(session.frames_in, self.frames, True, live.hints),
                held_bytes=held,
            )
        except (ControlHintError, FrameConditionError) as error:
            raise ValueError(
                f"{self.node}: a ControlNet takes one image for each of this run's frames, or one "
                "for all of them; a mask and a prompt hold for the whole stream, so each must be "
                f"a single one. {error}"
            ) from error

    def _check_shape(self, live: LiveStream, pictures: torch.Size | None) -> None:
        """Compare latents and pictures of a loaded stream with those of this run."""
        height, width = self.size
        fits = pictures in (None, (height, width))
        require(fits, f"its pictures are {pictures}, but frames are {height} x {width}")
        if (found := live.translator.session.shape) is None:
            return
        shape, with_depth = found
        fits = tuple(shape) == (4, height // 8, width // 8)
        require(fits, f"'shape' is {list(shape)}, but frames are {width}x{height} pixels")
        reads_depth = self.spec.depth_model is not None
        require(with_depth == reads_depth, "'shape' says otherwise about depth than its settings")


@contextmanager
def _file_named(saved: SavedStream | None) -> Iterator[None]:
    """Name the file of a saved stream in the errors of its state."""
    try:
        yield
    except StateError as error:
        if saved is None:
            raise
        raise damaged(saved.path, error) from error
    except ValueError as error:
        if saved is None:
            raise
        raise StateFileError(f"{saved.file_name} cannot be gone on with: {error}") from error
