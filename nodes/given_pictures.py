"""The pictures that the nodes of long videos are given: a VIDEO, opened, or an IMAGE batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from io import BytesIO
from typing import NamedTuple

import numpy as np
from comfy_api.latest import Input
from torch import Tensor

from ..live2diff_core.run.translator import to_uint8
from ..live2diff_core.streamingt2v.given_frames import MakeImage
from ..live2diff_core.video.reader import VideoReader, open_video
from .picture_video import stream_source
from .video import trim_window


class OpenedVideo(NamedTuple):
    """A VIDEO that is read frame by frame.

    Attributes:
        reader: its frames.
        source: a file or buffer, for its content and its sound; None of pictures.
        trim: start and duration in seconds; (0, 0) is all of it.
    """

    reader: VideoReader
    source: str | BytesIO | None
    trim: tuple[float, float] = (0.0, 0.0)


def opened_video(video: Input.Video, stack: ExitStack) -> OpenedVideo:
    """Open a VIDEO, until `stack` is closed."""
    source, picture_rate = stream_source(video)
    trim = trim_window(video)
    reader = stack.enter_context(open_video(source, *trim, frame_rate=picture_rate))
    return OpenedVideo(reader, source, trim)


def check_pictures(images: Tensor, name: str) -> None:
    """Refuse an IMAGE batch without pictures.

    Raises:
        ValueError: it is empty.
    """
    if not len(images):
        raise ValueError(f"{name} holds 0 frames; connect at least one picture, or nothing.")


def makers(images: Tensor) -> Iterator[MakeImage]:
    """Yield for each of the pictures [F, H, W, C] in 0..1 what makes its bytes."""
    for image in images:
        yield partial(_bytes, image[..., :3])


def content_of(images: Tensor) -> str:
    """Name the content of an IMAGE batch."""
    found = hashlib.sha256(str(tuple(images.shape)).encode())
    for image in images:
        found.update(_bytes(image).tobytes())
    return found.hexdigest()[:16]


def _bytes(image: Tensor) -> np.ndarray:
    return to_uint8(image).cpu().numpy()
