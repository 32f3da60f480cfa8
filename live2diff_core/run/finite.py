"""Counts the frames that were lost as NaN or infinite, tells of them, and ends a hopeless run."""

from __future__ import annotations

import logging

from ..stream.faults import DECODE, DEPTH, ENCODE, MODEL, NONE, PLACES
from ..stream.transfer import HostCopy
from .notices import Notices

# Frames in a row that may be lost: more than are on their way until the VAE's encoder and the depth
# model are tried in float32, and than a cut or a flash spoils.
MOST_IN_A_ROW = 8

_REPAIRED = -1
_REMEDIES = {
    DEPTH: "A depth model that overflows in float16 does this, and runs in float32 from then on. "
    "If more frames are lost, start ComfyUI with --force-fp32, or load the model's file anew: it "
    "may be damaged.",
    ENCODE: "A VAE that overflows in float16 does this, and encodes in float32 from then on. Start "
    "ComfyUI with --fp32-vae. If that does not help, the VAE's file may be damaged.",
    MODEL: "The UNet overflows: start ComfyUI with --fp32-unet or --force-fp32, and look at LoRAs "
    "of a high strength.",
    DECODE: "A VAE that overflows in float16 does this: start ComfyUI with --fp32-vae. If that "
    "does not help, the UNet overflows: try --force-fp32.",
}


class NotFiniteError(RuntimeError):
    """Too many frames in a row came out as NaN or infinite; the message says where."""


class FiniteWatch:
    """Looks at the pictures of a stream as they arrive.

    Attributes:
        notices: told of the frames that were lost, with their number.
    """

    def __init__(self, notices: Notices | None = None) -> None:
        """Start a stream."""
        self.notices = notices or Notices()
        # Place to (count, first frame).
        self._found: dict[int, tuple[int, int]] = {}
        self._in_a_row = 0
        self._last: HostCopy | None = None

    def look(self, frame: int, picture: HostCopy) -> None:
        """Look at the picture of `frame`, its index in the stream; waits for the picture.

        Raises:
            NotFiniteError: it is the last of `MOST_IN_A_ROW` that were lost.
        """
        # The pictures of skipped frames are that of the frame before.
        repeated, self._last = picture is self._last, picture
        place = picture.fault
        if place == NONE:
            self._in_a_row = 0
            if picture.repaired:
                self._count(_REPAIRED, frame)
            return
        self._count(place, frame)
        self._in_a_row += not repeated
        if self._in_a_row >= MOST_IN_A_ROW:
            self._in_a_row = 0
            raise NotFiniteError(
                f"{MOST_IN_A_ROW} frames in a row came out as NaN or infinite, the last of them "
                f"frame {frame}, in {PLACES[place]}. The stream ends here rather than show one "
                f"picture for ever. {_REMEDIES[place]}"
            )

    def report(self) -> None:
        """Log how many frames were lost, if there were several."""
        for place, (count, first) in self._found.items():
            if count > 1:
                logging.info("Live2Diff: %s", _text(place, count, first))

    def _count(self, place: int, frame: int) -> None:
        count, first = self._found.get(place, (0, frame))
        self._found[place] = count + 1, first
        self.notices.warn(_text(place, count + 1, first), f"not finite {place}")


def _text(place: int, count: int, first: int) -> str:
    """Say what became of `count` frames, of which the first is `first`."""
    if place == _REPAIRED:
        frames = f"frame {first}" if count == 1 else f"{count} frames (first: frame {first})"
        return (
            f"{frames} came out of the VAE's decoder as NaN or infinite, and decoding again in "
            "float32 helped. Start ComfyUI with --fp32-vae, which takes less time than both."
        )
    where = PLACES[place]
    if count == 1:
        lost = f"frame {first} came out as NaN or infinite, in {where}, and shows the frame before"
        return f"{lost} it. {_REMEDIES[place]}"
    lost = f"{count} frames came out as NaN or infinite (first: frame {first}, in {where}), and "
    return f"{lost}each shows the frame before it. {_REMEDIES[place]}"
