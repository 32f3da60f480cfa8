"""The state of a live stream between runs of Stream Step, without any of the host's models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..host.control_hints import FrameImages
from ..host.held_state import HeldState
from ..stream.state import State, in_order, join, numbered, part
from ..stream.transfer import HostCopy
from .finite import FiniteWatch
from .notices import Notices
from .saved_stream import PICTURE, SavedStream, check_live_state, file_version
from .starts_over import StartsOver
from .translator import FrameTranslator
from .unreached import tell_of_unreached_prompts

if TYPE_CHECKING:
    from .opened import OpenStream

# Beginning of the names of the temporal memory's tensors; some of what it holds is in no state.
_MEMORY = "translator/session/memory/"
# Pictures of a run that are on their way at one time, so that a long one pins little memory.
_FRAMES_BEHIND = 16


@dataclass(frozen=True)
class LiveOutput:
    """The output of one run.

    Attributes:
        pictures: [F, H, W, 3] finished frames, or a placeholder while there are none.
        frame_index: index in the stream of the first finished frame; -1 if there is none.
        warming_up: whether no frame of the stream has come out yet.
        notices: the warnings of the stream.
    """

    pictures: Tensor
    frame_index: int
    warming_up: bool
    notices: Notices


@dataclass
class LiveStream:
    """One stream of pictures.

    Attributes:
        name: its key in the registry.
        identity: what cannot change without starting over, see `LiveOpening.identity`.
        prompt: name of the prompts of the last frame.
        translator: its state; every run passes the models.
        place: device and dtype in which the model last ran.
        picture: [H, W, 3] in 0..1, the last finished frame, of this stream or the one that it
            replaced.
        hints: ControlNet images of the frames inside, by frame.
        undelivered: finished frames that no run has returned yet, [H, W, 3] in 0..1 each.
        source: the file it was loaded from, see `file_version`.
        note: the reason why it started over, shown while it is warming up.
        handle: what the host knows it by, once it has run; see `held_on`.
        starts: how it was started over.
        senders: what a node that runs by itself knows of the frames inside, by frame; not saved.
        notices: its warnings, for all of its runs.
    """

    name: str
    identity: dict[str, Any]
    prompt: str
    translator: FrameTranslator
    place: str = ""
    picture: HostCopy | None = None
    hints: FrameImages = field(default_factory=dict)
    undelivered: list[HostCopy] = field(default_factory=list)
    source: str = ""
    note: str = ""
    handle: HeldState | None = None
    starts: StartsOver = StartsOver()
    senders: dict[int, Any] = field(default_factory=dict)
    notices: Notices = field(default_factory=Notices)

    def __post_init__(self) -> None:
        """Watch the pictures."""
        self._watch = FiniteWatch(self.notices)
        self.translator.notices = self.notices

    @property
    def warming_up(self) -> bool:
        """Whether no frame has left the stream yet."""
        return self.translator.session.frames_out == 0

    @property
    def nbytes(self) -> int:
        """Bytes that the stream holds."""
        others = (t.nbytes for n, t in self.state_dict().items() if not n.startswith(_MEMORY))
        return self.translator.session.nbytes + sum(others)

    def move(self, place: str, device: torch.device) -> None:
        """Move the state when the model has another device or dtype than before."""
        if self.place not in ("", place):
            self.to(device)
        self.place = place

    def held_on(self, device: torch.device) -> HeldState:
        """Return the handle by which the host may move the state from `device` between runs."""
        if self.handle is None or self.handle.load_device != device:
            self.handle = HeldState(self, device)
        return self.handle

    def to(self, device: torch.device) -> None:
        """Move the state of the latents; finished pictures stay on the CPU."""
        self.translator.to(device)

    def follow_prompt(self, prompt: str) -> None:
        """Continue with another prompt, or the same."""
        if prompt != self.prompt:
            # A similar frame would repeat a result of the previous prompt.
            self.translator.similar.reset()
        self.prompt = prompt

    def push(
        self,
        opened: OpenStream,
        images: Tensor,
        hold: bool,
        finish: bool = False,
    ) -> LiveOutput:
        """Push frames and return the finished ones, after the work of all of them is queued.

        If anything raises, the frames pushed before the error stay in the stream, and the next
        call returns those that were finished.

        Args:
            opened: the stream's models.
            images: [F, H, W, 3] in 0..1.
            hold: return the last picture while warming up, rather than the frames themselves.
            finish: end the stream, and return the frames still inside, too.

        Raises:
            NotFiniteError: too many frames in a row were lost as NaN or infinite. They are dropped;
                the stream can go on.
        """
        session = self.translator.session
        if not session.ended:
            for image in images:
                self._finished(self.translator.push(opened, image))
        if finish:
            tell_of_unreached_prompts(session, opened.model, self.notices)
            for picture in self.translator.drain(opened):
                self._finished([picture])
        if (output := self.delivered([])) is not None:
            return output
        shown = self._placeholder(images, hold)
        return LiveOutput(shown, -1, self.warming_up, self.notices)

    def delivered(self, pictures: list[HostCopy]) -> LiveOutput | None:
        """Return pictures that the translator has finished without a push; None if there is none.

        Raises:
            NotFiniteError: see `push`.
        """
        self._finished(pictures)
        if not self.undelivered:
            return None
        first = self.translator.session.frames_out - len(self.undelivered)
        return LiveOutput(self._deliver(first), first, False, self.notices)

    def state_dict(self) -> State:
        """Return everything that determines how the stream continues; tensors are not copied."""
        hints = {str(frame): numbered(images) for frame, images in self.hints.items()}
        state = join(
            translator=self.translator.state_dict(),
            undelivered=numbered([picture.get() for picture in self.undelivered]),
            hints=join(**hints),
        )
        return state if self.picture is None else {**state, PICTURE: self.picture.get()}

    def load_state_dict(
        self, state: Mapping[str, Tensor], device: torch.device | None = None
    ) -> None:
        """Restore what `state_dict` returned, for models on `device`.

        Raises:
            ValueError: it is damaged, or of another kind of stream; nothing has changed then.
        """
        check_live_state(state)
        self.translator.load_state_dict(part(state, "translator"), device)
        self.undelivered = [HostCopy(p) for p in in_order(part(state, "undelivered"))]
        self.picture = HostCopy(state[PICTURE]) if PICTURE in state else None
        hints = part(state, "hints")
        frames = sorted({int(name.split("/")[0]) for name in hints})
        self.hints = {frame: in_order(part(hints, str(frame))) for frame in frames}

    def save(self, path: Path) -> None:
        """Write the stream to a file."""
        SavedStream(self.name, self.identity, self.prompt, self.state_dict(), "").save(path)
        if self.source.startswith(f"{path}|"):
            self.source = file_version(path)

    def _finished(self, pictures: list[HostCopy]) -> None:
        for picture in pictures:
            self.undelivered.append(picture)
            if len(self.undelivered) > _FRAMES_BEHIND:
                self.undelivered[-1 - _FRAMES_BEHIND].get()
            self.picture = picture

    def _deliver(self, first: int) -> Tensor:
        """Wait for the undelivered frames, of which the first is frame `first`: [F, H, W, 3]."""
        pictures, self.undelivered = self.undelivered, []
        for frame, picture in enumerate(pictures, first):
            self._watch.look(frame, picture)
        self._watch.report()
        if len(pictures) == 1:  # As in every steady frame, which is not copied.
            return pictures[0].get().unsqueeze(0)
        return torch.stack([picture.get() for picture in pictures])

    def _placeholder(self, images: Tensor, hold: bool) -> Tensor:
        """Return pictures to show instead, [F, H, W, 3] of the frames' size.

        After the warm-up, the pipeline takes some frames to fill, which show the last picture.
        """
        if not hold and self.warming_up:
            return images
        if self.picture is None:
            return torch.zeros_like(images[-1:])
        picture = self.picture.get()
        if picture.shape == images.shape[1:]:
            return picture.unsqueeze(0)
        size = (images.shape[1], images.shape[2])
        return interpolate(picture.movedim(-1, 0)[None], size=size).movedim(1, -1)
