"""Outputs by libraries that users install where they want them: a virtual camera, and NDI."""

from __future__ import annotations

import importlib
from fractions import Fraction
from typing import Any

import numpy as np

from .frames import Picture

VIRTUAL_CAMERA, NDI = "virtual camera", "ndi"
# The library of each, and what else it needs.
_LIBRARIES = {
    VIRTUAL_CAMERA: ("pyvirtualcam", "and a virtual camera: OBS's own, or v4l2loopback on Linux"),
    NDI: ("cyndilib", "which brings the NDI runtime"),
}
_RATE = 30


def check_device(output: str) -> None:
    """Refuse an output whose library is missing.

    Raises:
        ValueError: the message says what to install.
    """
    library, needs = _LIBRARIES[output]
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise ValueError(
            f"The output '{output}' needs the library {library}, {needs}. Install it into "
            f"ComfyUI's Python (python -m pip install {library}), or leave the line out."
        ) from error


class VirtualCamera:
    """A camera that other programs of this computer see."""

    def __init__(self, picture: Picture) -> None:
        """Open the first one that there is, for pictures like this one.

        Raises:
            RuntimeError: there is none.
        """
        import pyvirtualcam

        height, width = picture.shape[:2]
        self._camera = pyvirtualcam.Camera(width=width, height=height, fps=_RATE)

    def add(self, picture: Picture) -> None:
        """Show a picture, uint8 [H, W, 3]."""
        self._camera.send(picture)

    def close(self) -> None:
        """Give the camera back."""
        self._camera.close()


class NdiSender:
    """An NDI source in the local network."""

    def __init__(self, name: str, picture: Picture) -> None:
        """Open it under a name, for pictures like this one."""
        from cyndilib.sender import Sender
        from cyndilib.video_frame import VideoSendFrame
        from cyndilib.wrapper.ndi_structs import FourCC

        height, width = picture.shape[:2]
        frame: Any = VideoSendFrame()
        frame.set_resolution(width, height)
        frame.set_frame_rate(Fraction(_RATE))
        frame.set_fourcc(FourCC.RGBA)
        self._sender: Any = Sender(name)
        self._sender.set_video_frame(frame)
        self._sender.open()
        self._pixels = np.full((height, width, 4), 255, np.uint8)

    def add(self, picture: Picture) -> None:
        """Send a picture, uint8 [H, W, 3]."""
        self._pixels[..., :3] = picture
        self._sender.write_video(self._pixels.ravel())

    def close(self) -> None:
        """End the source."""
        self._sender.close()
