"""Tells of pictures that came out as NaN or infinite."""

from __future__ import annotations

from ..stream.transfer import HostCopy
from .notices import Notices


class FiniteWatch:
    """Looks at the pictures of one run, and warns of the first that is not finite."""

    def __init__(self, notices: Notices) -> None:
        """Start a run, whose warnings `notices` takes."""
        self._notices, self._warned = notices, False

    def look(self, frame: int, picture: HostCopy) -> None:
        """Look at the picture of `frame`, its index in the stream; waits for the picture."""
        if self._warned or picture.finite:
            return
        self._warned = True
        self._notices.warn(
            f"frame {frame} came out as NaN or infinite, and others may follow. A VAE that "
            "overflows in float16 does this: start ComfyUI with --fp32-vae. If that does not help, "
            "the UNet overflows: try --force-fp32.",
            key="finite",
        )
