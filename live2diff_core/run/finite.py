"""Tells of pictures that came out as NaN or infinite."""

from __future__ import annotations

import logging

from ..stream.transfer import HostCopy


class FiniteWatch:
    """Looks at the pictures of one run and logs a warning for the first that is not finite."""

    def __init__(self) -> None:
        """Start a run."""
        self._warned = False

    def look(self, frame: int, picture: HostCopy) -> None:
        """Look at the picture of `frame`, its index in the stream; waits for the picture."""
        if self._warned or picture.finite:
            return
        self._warned = True
        logging.warning(
            "Live2Diff: frame %d came out as NaN or infinite, and others may follow. A VAE that "
            "overflows in float16 does this: start ComfyUI with --fp32-vae. If that does not help, "
            "the UNet overflows: try --force-fp32.",
            frame,
        )
