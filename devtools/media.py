"""Pictures and videos of the demo: the sample clip, the side-by-side video, the contact sheet.

Runs inside the venv (PyAV, Pillow, scikit-image). Frames are RGB pictures, handled one at a time
wherever possible.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import skimage.data
from PIL import Image, ImageDraw, ImageFont

from devtools.console import ToolError

FRAMES = 48
SIZE = 256
FPS = 12
LABEL_HEIGHT = 20
INK = (235, 235, 235)
PAPER = (24, 24, 24)


def sample_frames(count: int = FRAMES, size: int = SIZE) -> Iterator[Image.Image]:
    """Yield a slow pan and zoom over scikit-image's photograph of an astronaut."""
    photo = Image.fromarray(skimage.data.astronaut())
    for index in range(count):
        t = index / max(count - 1, 1)
        side = 420 - 150 * t
        left = (photo.width - side) * (0.15 + 0.25 * t)
        top = (photo.height - side) * 0.1 * (1 - t)
        box = (left, top, left + side, top + side)
        yield photo.resize((size, size), Image.Resampling.LANCZOS, box=box)


def write_video(path: Path, frames: Iterable[Image.Image], fps: Fraction | int = FPS) -> int:
    """Encode frames of one even size as H.264 and return their number."""
    count = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            if count == 0:
                stream.width, stream.height = frame.size
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
            count += 1
        container.mux(stream.encode())
    return count


def write_sample_clip(path: Path) -> None:
    """Write the sample clip: 48 frames of 256x256 at 12 frames per second."""
    write_video(path, sample_frames())


def read_frames(path: Path) -> Iterator[Image.Image]:
    """Yield the pictures of a video in order. Raises ToolError when the file is no video."""
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                # Phones store the picture as the sensor sees it, with its rotation as metadata.
                turn = getattr(frame, "rotation", 0)
                image = frame.to_image()
                yield image.rotate(turn, expand=True) if turn else image
    except (av.error.FFmpegError, IndexError) as error:
        raise ToolError(f"cannot read a video from {path}: {error}") from error


def count_frames(path: Path) -> int:
    """Count a video's pictures by decoding them."""
    return sum(1 for _ in read_frames(path))


def frame_size(path: Path) -> tuple[int, int]:
    """Return a video's (width, height) in pixels. Raises ToolError when it has no picture."""
    for frame in read_frames(path):
        return frame.size
    raise ToolError(f"{path} holds no frames")


def frame_rate(path: Path) -> Fraction:
    """Return the frames per second that the file states."""
    with av.open(str(path)) as container:
        return Fraction(container.streams.video[0].average_rate or FPS)


def write_side_by_side(path: Path, before: Path, after: Path) -> None:
    """Write a video with `before` on the left and `after` on the right, labelled."""
    pairs = zip(read_frames(before), read_frames(after), strict=False)
    frames = (_beside(left, right) for left, right in pairs)
    write_video(path, frames, frame_rate(after))


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    width, height = right.size
    sheet = Image.new("RGB", (2 * width, height + LABEL_HEIGHT), PAPER)
    for index, (picture, label) in enumerate(((left, "input"), (right, "output"))):
        sheet.paste(picture.resize((width, height)), (index * width, LABEL_HEIGHT))
        _write(sheet, (index * width + 6, 2), label)
    return sheet


def write_contact_sheet(
    path: Path, before: Path, after: Path, every: int = 6, columns: int = 8, width: int = 160
) -> None:
    """Write a picture of every `every`-th frame with its number, the input above the output."""
    pairs = zip(read_frames(before), read_frames(after), strict=False)
    picked = list(itertools.islice(enumerate(pairs), 0, None, every))
    if not picked:
        raise ToolError(f"{after.name} holds no frames, so there is nothing to show")
    columns = min(columns, len(picked))
    first = picked[0][1][1]
    height = round(width * first.height / first.width)
    cell = LABEL_HEIGHT + 2 * height + 8
    rows = -(-len(picked) // columns)
    sheet = Image.new("RGB", (columns * (width + 4), rows * cell), PAPER)
    for position, (number, pair) in enumerate(picked):
        x = position % columns * (width + 4)
        y = position // columns * cell
        _write(sheet, (x + 4, y + 2), f"frame {number}")
        for offset, picture in zip((0, height + 2), pair, strict=True):
            sheet.paste(picture.resize((width, height)), (x, y + LABEL_HEIGHT + offset))
    sheet.save(path)


def _write(sheet: Image.Image, at: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(sheet).text(at, text, fill=INK, font=ImageFont.load_default(size=13))
