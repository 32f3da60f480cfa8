"""A live stream read from a file, until a run of Stream Step continues it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..stream.state import floats, in_order, part, require
from .state_file import damaged, differences, read_state, save_state
from .translator import FrameTranslator

# Name of the last finished picture in a live stream's state.
PICTURE = "picture"


class OtherStreamError(ValueError):
    """A saved stream differs from the graph's; the message names the differences."""


@dataclass(frozen=True)
class SavedStream:
    """A stream read from a file, until a run continues it.

    Attributes:
        name: its key in the registry.
        identity, prompt: see `LiveStream`.
        state: tensors by name, on the CPU.
        source: the file, see `file_version`.
        handle: None: the host need not know of tensors on the CPU.
    """

    name: str
    identity: dict[str, Any]
    prompt: str
    state: dict[str, Tensor]
    source: str
    handle: ClassVar[None] = None

    @classmethod
    def read(cls, name: str, path: Path) -> SavedStream:
        """Read a file that `save` wrote.

        Raises:
            StateFileError: the file is missing, damaged or of another kind.
            OtherStreamError: it holds the state of another node.
        """
        source = file_version(path)
        state, made_with = read_state(path)
        if not {"stream", "prompt"} <= made_with.keys():
            raise OtherStreamError(
                f"{path.name} is the state of a video, not a live stream from 'Save Stream'."
            )
        identity, prompt = made_with["stream"], made_with["prompt"]
        try:
            require(isinstance(identity, dict), "its settings are none")
            require(isinstance(prompt, str), "its prompt is none")
            check_live_state(state)
        except ValueError as error:
            raise damaged(path, error) from error
        return cls(name, identity, prompt, state, source)

    def save(self, path: Path) -> None:
        """Write it to a file, atomically."""
        save_state(path, self.state, {"stream": self.identity, "prompt": self.prompt})

    @property
    def path(self) -> Path:
        """The file that it was read from."""
        return Path(self.source.rsplit("|", 2)[0])

    @property
    def file_name(self) -> str:
        """Name of the file that it was read from, without folders."""
        return self.path.name

    @property
    def nbytes(self) -> int:
        """Bytes that the state holds."""
        return sum(tensor.nbytes for tensor in self.state.values())

    def check(self, identity: Mapping[str, Any]) -> None:
        """Refuse to continue if the stream has another identity.

        Raises:
            OtherStreamError: the identities differ; the message names the differences.
        """
        if differing := differences(self.identity, identity):
            raise OtherStreamError(
                f"The stream '{self.name}' was loaded from {self.file_name}, which was made with "
                f"other settings: {differing}. Set them back; or bypass 'Load Stream' and let the "
                "stream go with 'Reset Stream'."
            )


def check_live_state(state: Mapping[str, Tensor]) -> torch.Size | None:
    """Check what `LiveStream.state_dict` returned, as far as it can be checked without a model.

    Returns:
        Height and width of the pictures in it; None without any.

    Raises:
        ValueError: it is damaged.
    """
    read = FrameTranslator.check_state(part(state, "translator"))
    undelivered = part(state, "undelivered")
    shown = in_order(undelivered)
    if read.delivered:
        # Before, it may be that of a stream of another size, which this one replaced.
        shown.append(floats(state, PICTURE, None, None, 3))
    sizes = {picture.shape[:2] for picture in shown}
    sizes |= set() if read.size is None else {read.size}
    require(len(sizes) < 2, "its pictures are of several sizes")
    size = next(iter(sizes), None)
    for name in undelivered:
        floats(undelivered, name, *(size or ()), 3)
    require(len(undelivered) <= read.delivered, "more pictures are finished than have left")
    if PICTURE in state:
        floats(state, PICTURE, None, None, 3)
    _check_hints(part(state, "hints"), {frame.frame for frame in read.session.inside})
    return size


def _check_hints(state: Mapping[str, Tensor], inside: set[int]) -> None:
    """Check the ControlNet images of the frames inside: as many for each, or none at all."""
    names = {tuple(name.split("/", 1)) for name in state}
    frames = {name[0] for name in names}
    if not frames:
        return
    require(frames == {str(frame) for frame in inside}, "'hints' are not of the frames inside")
    of_frames = {frame: part(state, frame) for frame in frames}
    require(len({len(each) for each in of_frames.values()}) == 1, "'hints' of a frame are missing")
    for of_frame in of_frames.values():
        for name, _ in enumerate(in_order(of_frame)):
            floats(of_frame, str(name), 1, None, None, None)


def file_version(path: Path) -> str:
    """Name the version of a file by path, time and size; empty when there is no file."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{path}|{found.st_mtime_ns}|{found.st_size}"
