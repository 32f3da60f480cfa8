"""Frames out of numbered pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from .container import TrimWindow
from .folder import picture_names
from .frame import Image, PendingFrame, VideoError, VideoInfo, WarningLog

# Frames per second of pictures, unless another is asked for: cinema's.
PICTURE_RATE = 24
# What Pillow raises for damaged pictures, and for those that look like an attack.
PICTURE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Pillow.DecompressionBombError)


def find_pictures(source: str | Path) -> list[Path] | None:
    """Pictures of a folder, or of a pattern such as `shot_%04d.png` or `shot_*.png`.

    Sorted as people count: `shot_2` comes before `shot_10`. Hidden files are left out.

    Returns:
        The files, or None if `source` is neither a folder nor a pattern.

    Raises:
        VideoError: there are none.
    """
    path = Path(source)
    number = re.compile(r"%0?\d*d")
    if path.is_dir():
        found = [path / name for name in picture_names(path)]
    elif path.exists() or not (number.search(path.name) or "*" in path.name):
        return None
    else:
        parts = re.split(r"(%0?\d*d|\*)", path.name)
        kinds = {"*": ".*"}
        pattern = "".join(
            r"\d+" if number.fullmatch(part) else kinds.get(part, re.escape(part)) for part in parts
        )
        folder = path.parent
        names = picture_names(folder) if folder.is_dir() else []
        found = [folder / name for name in names if re.fullmatch(pattern, name)]
    if not found:
        raise VideoError(f"There are no PNG, JPEG, WebP, TIFF or BMP pictures in {source}.")
    return found


def rgb_of(picture: Pillow.Image) -> Image:
    """Return uint8 [H, W, 3]; alpha is dropped, the camera's turn is applied.

    16 bits become 8, and so do floats, where 1.0 is white.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F" or picture.mode.startswith("I"):
        # Pillow would clip these, not scale them.
        values = np.asarray(picture)
        scaled = values * 255.0 if picture.mode == "F" else values.astype(np.int64) >> 8
        gray = np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if "transparency" in picture.info:
        # Straight to RGB, Pillow warns about transparency that it would lose.
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def _sized(image: Image, size: tuple[int, int]) -> Image:
    """Scale to (width, height), if it has another size."""
    if (image.shape[1], image.shape[0]) == size:
        return image
    return np.array(Pillow.fromarray(image).resize(size, Pillow.Resampling.LANCZOS))


class PictureSource:
    """Pictures in a row, at a constant frame rate.

    A picture that cannot be read leaves a gap in time. Pictures of another size than the first are
    scaled to it.

    Args:
        files: pictures in order.
        frame_rate: frames per second.
        window: trim window.
        log: takes the warnings.

    Raises:
        VideoError: none of them can be read, or none is in the window.
    """

    def __init__(
        self, files: list[Path], frame_rate: Fraction, window: TrimWindow, log: WarningLog
    ) -> None:
        """Read the first picture, which knows the size."""
        self._log, self._step = log, 1 / frame_rate
        first, stop = window.ticks(self._step)
        self._files = files[first:stop]
        self._shown = 0
        if not self._files:
            raise VideoError(
                f"{files[0].parent} has no pictures in the part that was asked for. At "
                f"{float(frame_rate):g} frames per second its {len(files)} pictures last "
                f"{float(len(files) * self._step):.3f} s."
            )
        pictures = self._read()
        head = next(pictures, None)
        if head is None:
            raise VideoError(f"None of the {len(files)} pictures in {files[0].parent} can be read.")
        self._pictures = chain([head], pictures)
        self.info = VideoInfo(
            width=head[1].shape[1],
            height=head[1].shape[0],
            frame_rate=frame_rate,
            time_base=self._step,
            frame_count=len(self._files),
            rotation=0,
            sample_aspect_ratio=Fraction(1),
            codec=self._files[0].suffix.lower().lstrip("."),
        )

    def close(self) -> None:
        """Nothing stays open between pictures."""

    def frames(self) -> Iterator[PendingFrame]:
        """Pictures that can be read, in order."""
        size = (self.info.width, self.info.height)
        for slot, image in self._pictures:
            if (image.shape[1], image.shape[0]) != size:
                found = f"{image.shape[1]}x{image.shape[0]}"
                message = f"{self._files[slot].name} is {found} and was scaled to the first's size"
                self._log.warn(message, self._shown, slot * self._step)
            self._shown += 1
            yield PendingFrame(slot * self._step, self._step, partial(_sized, image, size))

    def _read(self) -> Iterator[tuple[int, Image]]:
        for slot, file in enumerate(self._files):
            try:
                with Pillow.open(file) as picture:
                    image = rgb_of(picture)
            except PICTURE_ERRORS as error:
                message = f"{file.name} cannot be read: {error}"
                self._log.warn(message, self._shown, slot * self._step)
                continue
            yield slot, image
