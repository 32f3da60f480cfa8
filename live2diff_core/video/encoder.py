"""How frames are encoded: H.264 that every player takes, or H.264 without loss."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet

from .frame import Image, VideoError
from .pixels import BT709, FULL, LIMITED, Yuv420FromRgb, frame_of

Codec = Literal["h264", "lossless"]
PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)
# x264's result depends on the number of threads. A fixed number gives a resumed video the same
# bytes on another machine.
_THREADS = "4"


@dataclass(frozen=True)
class Encoding:
    """How to encode.

    Attributes:
        codec: "h264" is yuv420p, BT.709, limited range. "lossless" is RGB in H.264 (High 4:4:4
            Predictive), bit for bit; FFmpeg, mpv and VLC play it, browsers do not.
        crf: quality of "h264", 1 (best) to 51; "lossless" has none.
        preset: x264's balance of speed and size.

    Raises:
        VideoError: a value out of range.
    """

    codec: Codec = "h264"
    crf: int = 18
    preset: str = "medium"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.codec not in get_args(Codec):
            raise VideoError(f"The codec is '{self.codec}'; choose h264 or lossless.")
        # 0 would be lossless yuv, which players do not take either.
        if not 1 <= self.crf <= 51:
            raise VideoError(f"crf is {self.crf}; it goes from 1 (best) to 51 (smallest).")
        if self.preset not in PRESETS:
            raise VideoError(f"The preset is '{self.preset}'; choose one of {', '.join(PRESETS)}.")

    @property
    def pixel_format(self) -> str:
        """FFmpeg's name of the encoded pixels."""
        return "yuv420p" if self.codec == "h264" else "rgb24"

    @property
    def key(self) -> str:
        """Text that is equal for settings that give the same bytes."""
        quality = f"crf{self.crf}" if self.codec == "h264" else "qp0"
        return f"{self.codec}-{quality}-{self.preset}"

    def encoded_size(self, width: int, height: int) -> tuple[int, int]:
        """Size of the encoded picture.

        4:2:0 has no odd sizes, and 4:4:4 no browser that plays it: "h264" repeats the last row or
        column once. "lossless" keeps every size.
        """
        if self.codec == "h264":
            return width + width % 2, height + height % 2
        return width, height


class FrameEncoder:
    """One encoder for one file, from a keyframe on.

    B-frames are off: their decoding times would make the lengths of frames in MP4 wrong at a
    variable frame rate, and pieces could not be joined without changing them.

    Args:
        container: takes the packets.
        settings: how to encode.
        size: width and height of the images.
        time_base: seconds per tick.
        frame_rate: average, for x264's rate control.
        sample_aspect_ratio: width to height of a pixel.
    """

    def __init__(
        self,
        container: OutputContainer,
        settings: Encoding,
        size: tuple[int, int],
        time_base: Fraction,
        frame_rate: Fraction,
        sample_aspect_ratio: Fraction,
    ) -> None:
        """Add a stream to `container`."""
        lossless = settings.codec == "lossless"
        options = {"preset": settings.preset, "threads": _THREADS, "g": "250", "bf": "0"}
        options |= {"qp": "0"} if lossless else {"crf": str(settings.crf)}
        encoder = "libx264rgb" if lossless else "libx264"
        stream = container.add_stream(encoder, rate=frame_rate, options=options)
        assert isinstance(stream, av.VideoStream)
        self._width, self._height = settings.encoded_size(*size)
        stream.width, stream.height = self._width, self._height
        stream.pix_fmt = settings.pixel_format
        stream.time_base = time_base
        context = stream.codec_context
        context.time_base = time_base
        context.max_b_frames = 0
        context.sample_aspect_ratio = sample_aspect_ratio
        context.color_primaries, context.color_trc = BT709, BT709
        # RGB is matrix 0, and always full range.
        context.colorspace, context.color_range = (0, FULL) if lossless else (BT709, LIMITED)
        self._container, self._stream, self._time_base = container, stream, time_base
        self._frame = frame_of if lossless else Yuv420FromRgb()
        self._durations: dict[int, int] = {}

    def write(self, image: Image, ticks: int, duration: int) -> None:
        """Encode uint8 [H, W, 3], shown from `ticks` on for `duration` ticks."""
        height, width = image.shape[:2]
        if (width, height) != (self._width, self._height):
            margins = ((0, self._height - height), (0, self._width - width), (0, 0))
            image = np.pad(image, margins, mode="edge")
        frame = self._frame(np.ascontiguousarray(image))
        frame.pts, frame.time_base = ticks, self._time_base
        self._durations[ticks] = duration
        self._mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Write what the encoder still holds."""
        self._mux(self._stream.encode(None))

    def _mux(self, packets: list[Packet]) -> None:
        for packet in packets:
            # The last frame's is in no difference of times.
            assert packet.pts is not None
            packet.duration = self._durations.pop(packet.pts)
            self._container.mux(packet)
