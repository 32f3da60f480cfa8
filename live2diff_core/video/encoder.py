"""How frames are encoded: H.264 that every player takes, or H.264 without loss."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

from av.container import OutputContainer
from av.video.stream import VideoStream

from .frame import VideoError
from .pixels import BT709, FULL, LIMITED

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
    def key(self) -> str:
        """Text that is equal for two encodings that give the same bytes."""
        quality = f"crf{self.crf}" if self.codec == "h264" else "qp0"
        return f"{self.codec}-{quality}-{self.preset}"

    @property
    def bytes_per_pixel(self) -> float:
        """A generous estimate for pictures of the kind that cameras make; half every six of crf."""
        return 1.5 if self.codec == "lossless" else 0.2 * 2 ** ((18 - self.crf) / 6)

    def add_stream(
        self,
        container: OutputContainer,
        size: tuple[int, int],
        time_base: Fraction,
        frame_rate: Fraction,
        sample_aspect_ratio: Fraction,
    ) -> VideoStream:
        """Add a stream that encodes frames in this way, from a keyframe on.

        4:2:0 has no odd sizes, and no browser plays 4:4:4: a stream of "h264" is a row higher or a
        column wider than odd frames. B-frames are off: their decoding times would make the lengths
        of frames in MP4 wrong at a variable frame rate, and pieces could not be joined without
        changing them.

        Args:
            container: gets the stream.
            size: width and height of the images.
            time_base: seconds per tick.
            frame_rate: average, for x264's rate control.
            sample_aspect_ratio: width to height of a pixel.
        """
        lossless = self.codec == "lossless"
        options = {"preset": self.preset, "threads": _THREADS, "g": "250", "bf": "0"}
        options |= {"qp": "0"} if lossless else {"crf": str(self.crf)}
        encoder = "libx264rgb" if lossless else "libx264"
        stream = container.add_stream(encoder, rate=frame_rate, options=options)
        assert isinstance(stream, VideoStream)
        multiple = 1 if lossless else 2
        stream.width, stream.height = (side + side % multiple for side in size)
        stream.pix_fmt = "rgb24" if lossless else "yuv420p"
        stream.time_base = time_base
        context = stream.codec_context
        context.time_base = time_base
        context.max_b_frames = 0
        context.sample_aspect_ratio = sample_aspect_ratio
        context.color_primaries, context.color_trc = BT709, BT709
        # RGB is matrix 0, and always full range.
        context.colorspace, context.color_range = (0, FULL) if lossless else (BT709, LIMITED)
        return stream
