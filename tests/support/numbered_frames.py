"""Pictures that carry a number which survives JPEG, scaling and cropping to a square.

Sixteen bits, white or black, in four rows of four cells, in the middle of a grey frame: the cells
are a sixth of the frame's height wide.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

BITS, ROW = 16, 4
BLACK, GREY, WHITE = 16, 128, 235

# The number on a canvas, in the page.
READ_NUMBER = """canvas => {
  const context = canvas.getContext("2d"), cell = canvas.height / 6;
  const left = (canvas.width - 4 * cell) / 2, top = cell;
  let number = 0;
  for (let bit = 0; bit < 16; bit++) {
    const x = left + (bit % 4 + 0.5) * cell, y = top + (Math.floor(bit / 4) + 0.5) * cell;
    if (context.getImageData(x, y, 1, 1).data[1] > 127) number |= 1 << bit;
  }
  return number;
}"""


def numbered_luma(number: int, width: int, height: int) -> np.ndarray:
    """Return the brightness of a frame that carries `number`: uint8 [height, width]."""
    picture = np.full((height, width), GREY, np.uint8)
    cell = height // 6
    left, top = (width - ROW * cell) // 2, cell
    for bit in range(BITS):
        x, y = left + bit % ROW * cell, top + bit // ROW * cell
        picture[y : y + cell, x : x + cell] = WHITE if number >> bit & 1 else BLACK
    return picture


def write_camera(path: Path, numbers: Iterable[int], width=320, height=240, fps=25) -> Path:
    """Write a film for Chromium's test camera, which plays it again and again."""
    colour = np.full(width * height // 2, 128, np.uint8).tobytes()
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420\n".encode())
        for number in numbers:
            file.write(b"FRAME\n" + numbered_luma(number, width, height).tobytes() + colour)
    return path


def write_astronaut(path: Path) -> Path:
    """Write a film for the test camera that is good to look at: the sample clip, as MJPEG."""
    from devtools.media import sample_frames

    with path.open("wb") as file:
        for picture in sample_frames(100, 480):
            picture.save(file, "JPEG", quality=90)
    return path
