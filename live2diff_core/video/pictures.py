"""Reads numbered pictures, and WebP, which FFmpeg does not decode, with Pillow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import accumulate, chain
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, ImageSequence

from .container import Source, TrimWindow, name_of
from .folder import picture_names
from .frame import Image, PendingFrame, VideoError, VideoInfo, WarningLog

# Frames per second of pictures, unless another rate is asked for: that of cinema.
PICTURE_RATE = 24
# Pillow raises these for damaged pictures, and the last for those too large to be honest.
_PICTURE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Pillow.DecompressionBombError)
_MILLISECOND = Fraction(1, 1000)
# Browsers show frames of up to 10 ms for 100 ms, because many files state 0 for no reason.
_SHORTEST, _USUAL = 10, 100


def find_pictures(source: str | Path) -> list[Path] | None:
    """List the pictures of a folder, or of a pattern such as `shot_%04d.png` or `shot_*.png`.

    They are in natural order: `shot_2` comes before `shot_10`. Hidden files are left out.

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


def open_pictures(
    files: list[Path], frame_rate: Fraction, window: TrimWindow, log: WarningLog
) -> tuple[VideoInfo, Iterator[PendingFrame]]:
    """Open pictures in a row, shown at a constant frame rate.

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
    tick, folder = 1 / frame_rate, files[0].parent
    start, stop = window.ticks(tick)
    inside = files[start:stop]
    if not inside:
        raise VideoError(
            f"{folder} has no pictures in the part that was asked for. At {float(frame_rate):g} "
            f"frames per second its {len(files)} pictures last {float(len(files) * tick):.3f} s."
        )
    frames = _read_pictures(inside, tick, log)
    first = next(frames, None)
    if first is None:
        raise VideoError(f"None of the {len(files)} pictures in {folder} can be read.")
    height, width = first.image().shape[:2]
    codec = inside[0].suffix.lower().lstrip(".")
    info = VideoInfo(width, height, frame_rate, tick, len(inside), codec)
    return info, chain([first], frames)


def _read_pictures(files: list[Path], tick: Fraction, log: WarningLog) -> Iterator[PendingFrame]:
    """Yield the pictures that can be read, `tick` seconds apart, in the size of the first."""
    shown, size = 0, None
    for slot, file in enumerate(files):
        try:
            with Pillow.open(file) as picture:
                image = _rgb(picture)
        except _PICTURE_ERRORS as error:
            log.warn(f"{file.name} cannot be read: {error}", shown, slot * tick)
            continue
        height, width = image.shape[:2]
        size = size or (width, height)
        if (width, height) != size:
            message = f"{file.name} is {width}x{height} and was scaled to the first's size"
            log.warn(message, shown, slot * tick)
            image = np.array(Pillow.fromarray(image).resize(size, Pillow.Resampling.LANCZOS))
        shown += 1
        yield PendingFrame(slot * tick, tick, partial(np.asarray, image))


def open_webp(
    source: Source, window: TrimWindow, log: WarningLog
) -> tuple[VideoInfo, Iterator[PendingFrame]]:
    """Open a WebP animation or picture, whose frames have durations in whole milliseconds.

    Args:
        source: file, or its bytes; the compressed bytes stay in memory.
        window: trim window.
        log: takes the warnings.

    Raises:
        VideoError: it cannot be decoded, or has no frame in the window.
    """
    name = name_of(source)
    data = source.getvalue() if isinstance(source, BytesIO) else Path(source).read_bytes()
    picture, used = _open_animation(data, name)
    durations = _durations(picture, log)
    stated = 8 + int.from_bytes(data[4:8], "little")
    if used < stated:
        log.warn("The file is cut off", len(durations), None, used)
    if not durations:
        raise VideoError(f"{name} is a WebP file that does not decode.")
    start, stop = window.ticks(_MILLISECOND)
    *begins, end = accumulate(durations, initial=0)
    frames = [
        PendingFrame(
            (begin - start) * _MILLISECOND,
            duration * _MILLISECOND,
            partial(_rgb_at, picture, index),
        )
        for index, (begin, duration) in enumerate(zip(begins, durations, strict=True))
        if start <= begin and (stop is None or begin < stop)
    ]
    if not frames:
        raise VideoError(
            f"{name} has no frames in the part that was asked for. It is {end / 1000:.3f} s long."
        )
    height, width = frames[0].image().shape[:2]
    rate = len(frames) / sum((frame.duration for frame in frames), Fraction(0))
    return VideoInfo(width, height, rate, _MILLISECOND, len(frames), "webp"), iter(frames)


def _open_animation(data: bytes, name: str) -> tuple[Pillow.Image, int]:
    """Open WebP, and return how many bytes of it are used: only complete chunks if it is cut off.

    libwebp refuses an animation whose last frame is cut off; without that frame it takes it.
    """
    try:
        return Pillow.open(BytesIO(data)), len(data)
    except _PICTURE_ERRORS:
        whole = _complete_chunks(data)
    try:
        return Pillow.open(BytesIO(whole)), len(whole)
    except _PICTURE_ERRORS as error:
        raise VideoError(f"{name} is a WebP file that does not decode.") from error


def _complete_chunks(data: bytes) -> bytes:
    """Cut a RIFF file after its last complete chunk."""
    stop, end = 12, 12
    while end <= len(data):
        stop = end
        size = int.from_bytes(data[stop + 4 : stop + 8], "little")
        end = stop + 8 + size + size % 2
    return b"RIFF" + (stop - 8).to_bytes(4, "little") + data[8:stop]


def _durations(picture: Pillow.Image, log: WarningLog) -> list[int]:
    """List the milliseconds of the frames that decode.

    The list ends at damage, since each frame builds on the one before. Pillow states the duration
    of a frame only once it has decoded it.
    """
    durations: list[int] = []
    try:
        for frame in ImageSequence.Iterator(picture):
            _rgb(frame)
            duration = frame.info["duration"]
            durations.append(duration if duration > _SHORTEST else _USUAL)
    except _PICTURE_ERRORS as error:
        message = f"The animation does not decode further ({error})"
        log.warn(message, len(durations), sum(durations) * _MILLISECOND)
    return durations


def _rgb_at(picture: Pillow.Image, index: int) -> Image:
    """Decode frame `index` of an animation to uint8 [H, W, 3]."""
    picture.seek(index)
    return _rgb(picture)


def _rgb(picture: Pillow.Image) -> Image:
    """Return uint8 [H, W, 3]; alpha is dropped, the camera's turn is applied.

    16 bits become 8, and so do floats, where 1.0 is white.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F" or picture.mode.startswith("I"):
        # Pillow would clip these values, not scale them.
        values = np.asarray(picture)
        scaled = values * 255.0 if picture.mode == "F" else values.astype(np.int64) >> 8
        gray = np.nan_to_num(scaled).clip(0, 255).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
    if "transparency" in picture.info:
        # Converting straight to RGB, Pillow warns about the transparency that it loses.
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))
