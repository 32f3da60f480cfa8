"""How the models of a stream of pictures compute: as loaded, in float32, whole or in tiles."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..stream.faults import DEPTH, ENCODE, PLACES
from ..stream.state import State, integer, integers, require
from ..stream.transfer import HostCopy
from .notices import Notices

if TYPE_CHECKING:
    from .opened import OpenStream

# Frames behind the one that enters whose faults are looked at: by then they have arrived, and the
# device has a frame to work on meanwhile. Fixed, so that every run changes at the same frame.
_FRAMES_BEHIND = 2
# Of latent pixels; larger than any frame that the nodes take.
_LARGEST_TILE = 1024
# Pixels of a side per latent pixel.
_SCALE = 8


class Computing:
    """What a stream has learned of its models, which saved states keep.

    Attributes:
        exact: the places that compute in float32, see `OpenStream`.
        tile: side of the VAE's tiles in latent pixels; 0 for whole frames.
    """

    def __init__(self, exact: Iterable[int] = (), tile: int = 0) -> None:
        """Begin with all models as they are loaded, or with what is known."""
        self.exact, self.tile = set(exact), tile
        # Faults of the frames that entered last, oldest first.
        self._faults: deque[HostCopy] = deque()
        self._half = False

    def tell(self, opened: OpenStream) -> None:
        """Let an opened stream compute so, now and when it changes."""
        opened.exact, opened.tile = self.exact, self.tile
        self._half = opened.half

    def entered(self, fault: Tensor) -> None:
        """Take note of a frame's fault, 0-d, before the model saw it."""
        if self._half:
            self._faults.append(HostCopy(fault, fault=fault))

    def look_back(self) -> None:
        """Choose float32 for what made an earlier frame NaN or infinite; before a frame enters."""
        while len(self._faults) >= _FRAMES_BEHIND:
            place = self._faults.popleft().fault
            if place in (DEPTH, ENCODE):
                self.exact.add(place)

    def note_memory(self, opened: OpenStream, notices: Notices) -> None:
        """Remember and tell if memory has run out."""
        if opened.short:
            notices.warn(
                "no memory is left to compute in float32 what comes out as NaN or infinite, so "
                "these frames show the frame before them. A smaller frame size, or TAESD for the "
                "VAE, needs less memory.",
                "float32",
            )
        if opened.tile == self.tile:
            return
        self.tile = opened.tile
        notices.warn(
            "the VAE ran out of memory with whole frames, and goes on in tiles of "
            f"{self.tile * _SCALE} pixels, which takes longer and may show faint seams. A smaller "
            "frame size, or TAESD for the VAE, needs less memory.",
            "tiles",
        )

    def state_dict(self) -> State:
        """Return all as tensors by name; waits for the faults of the last frames."""
        return {
            "exact": torch.tensor(sorted(self.exact), dtype=torch.int64),
            "tile": torch.tensor(self.tile),
            "faults": torch.tensor([f.fault for f in self._faults], dtype=torch.uint8),
        }

    @staticmethod
    def check_state(state: Mapping[str, Tensor]) -> None:
        """Check what `state_dict` returned; earlier versions saved nothing of it.

        Raises:
            StateError: it is damaged.
        """
        if not state:
            return
        exact, faults = integers(state, "exact"), state.get("faults")
        require(set(exact) <= PLACES.keys(), f"'exact' names the places {exact}")
        tile = integer(state, "tile")
        require(tile <= _LARGEST_TILE, f"the VAE's tiles have sides of {tile}")
        right = faults is not None and faults.dtype == torch.uint8 and faults.ndim == 1
        require(right, "'faults' should be bytes in a row")

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> Computing:
        """Restore what `state_dict` returned; earlier versions saved nothing of it."""
        if not state:
            return cls()
        found = cls(state["exact"].tolist(), int(state["tile"]))
        found._faults = deque(HostCopy(f, fault=f) for f in state["faults"].unbind())
        return found
