"""Converts pixels between FFmpeg's formats and RGB with swscale, the same on every run.

swscale's fast paths differ from run to run in the last columns of some widths and formats. Its
`accurate_rnd` and `bitexact` paths do not, and they round rather than truncate. A filter graph is
used because `VideoFrame.reformat` ignores the frame's colour matrix in some versions of PyAV.
"""

from __future__ import annotations

import av
import numpy as np
from av.video.frame import VideoFrame

from .frame import Image

_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
# AVColorSpace to the names that the scale filter takes.
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m"}
_MATRICES |= {9: "bt2020", 10: "bt2020"}
BT709, LIMITED, FULL = 1, 1, 2


class _Converter:
    """Converts frames with a filter graph, which is built anew when frames of another kind come."""

    _kind = ""

    def _filters(self, frame: VideoFrame) -> list[tuple[str, str]]:
        """List the names and arguments of the filters for frames like `frame`."""
        raise NotImplementedError

    def _convert(self, frame: VideoFrame) -> VideoFrame:
        # Undeclared, the graph would complain about every frame that differs from its defaults.
        kind = (
            f"video_size={frame.width}x{frame.height}:pix_fmt={frame.format.name}:"
            f"time_base=1/1000:colorspace={int(frame.colorspace)}:range={int(frame.color_range)}"
        )
        if kind != self._kind:
            filters = [("buffer", kind), *self._filters(frame), ("buffersink", "")]
            # PyAV's contexts do not keep their graph alive.
            self._graph = av.filter.Graph()
            nodes = [self._graph.add(name, arguments) for name, arguments in filters]
            self._graph.link_nodes(*nodes).configure()
            self._kind, self._source, self._sink = kind, nodes[0], nodes[-1]
        self._source.push(frame)
        converted = self._sink.pull()
        assert isinstance(converted, VideoFrame)
        return converted


class RgbFromFrame(_Converter):
    """Converts decoded frames to RGB.

    Tagged range and matrix are honoured. Frames without a matrix get BT.709 from 1280 columns or
    577 rows on, else BT.601, as players guess. Alpha is dropped, as ComfyUI's own loader does; 10
    and more bits are rounded to 8. Frames of another size, which some streams switch to midway, are
    scaled to the size of the first.

    Args:
        width, height: pixels of the result before rotation.
        quarter_turns: counter-clockwise.
    """

    def __init__(self, width: int, height: int, quarter_turns: int) -> None:
        """Convert to `width` x `height`, then rotate."""
        self._size = (width, height)
        self._quarter_turns = quarter_turns

    def __call__(self, frame: VideoFrame) -> Image:
        """Return uint8 [H, W, 3], contiguous."""
        image = self._convert(frame).to_ndarray()
        return np.ascontiguousarray(np.rot90(image, self._quarter_turns))

    def _filters(self, frame: VideoFrame) -> list[tuple[str, str]]:
        full = int(frame.color_range) == FULL or frame.format.name.startswith("yuvj")
        guess = "bt709" if frame.width >= 1280 or frame.height > 576 else "bt601"
        scale = (
            f"w={self._size[0]}:h={self._size[1]}:flags={_FLAGS}:out_range=pc"
            f":in_range={'pc' if full or frame.format.is_rgb else 'tv'}"
            f":in_color_matrix={_MATRICES.get(int(frame.colorspace), guess)}"
        )
        return [("scale", scale), ("format", "rgb24")]


class Yuv420FromRgb(_Converter):
    """Converts RGB to yuv420p, BT.709, limited range, which every player takes."""

    def __call__(self, image: Image) -> VideoFrame:
        """Convert uint8 [H, W, 3], H and W even."""
        return self._convert(frame_of(image))

    def _filters(self, frame: VideoFrame) -> list[tuple[str, str]]:
        scale = f"out_color_matrix=bt709:out_range=tv:flags={_FLAGS}"
        return [("scale", scale), ("format", "yuv420p")]


def frame_of(image: Image) -> VideoFrame:
    """Copy uint8 [H, W, 3] into a frame in rgb24."""
    frame = VideoFrame.from_ndarray(image, format="rgb24")
    # These numbers are RGB; untagged, some versions warn about the link to the filter.
    frame.colorspace, frame.color_range = 0, FULL
    return frame
