"""H.264 both ways, for one connection each: a tenth of JPEG's bytes, for slow networks.

Every frame depends on the one before it, so a connection's frames are coded in their order, and
only those that are sent.
"""

from __future__ import annotations

import time
from fractions import Fraction

import av
from av.video.codeccontext import VideoCodecContext

from ..live2diff_core.live.frames import Picture
from ..live2diff_core.video.pixels import RgbFromFrame, Yuv420FromRgb
from .frame_header import H264_DELTA, H264_KEY
from .jpeg import Encoded, PictureError
from .limits import SIDE

# As WebCodecs' avc1.42E0…: no frame waits for a later one, and every frame is one packet.
_OPTIONS = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "crf": "23"}
_KEY_EVERY = 90
_RATE = 30


class H264Decoder:
    """Decodes a client's frames."""

    def __init__(self) -> None:
        """Wait for a key frame."""
        self._codec = VideoCodecContext.create("h264", "r")
        # A client's numbers must not make the server allocate more than a frame.
        self._codec.options = {"max_pixels": str(SIDE * SIDE), "flags": "low_delay"}
        self._codec.thread_count = 1
        self._size, self._convert = (0, 0), RgbFromFrame(8, 8, 0)

    def decode(self, data: bytes) -> Picture:
        """Decode the next frame to uint8 [H, W, 3].

        Raises:
            PictureError: it is damaged, or its key frame is missing.
        """
        try:
            frames = self._codec.decode(av.Packet(data))
            if not frames:
                raise PictureError("it is no frame by itself, or its key frame is missing")
            frame = frames[-1]
            size = (frame.width, frame.height)
            if min(size) < 8 or max(size) > SIDE:
                raise PictureError(f"its sides go from 8 to {SIDE}")
            if size != self._size:
                self._size, self._convert = size, RgbFromFrame(*size, 0)
            return self._convert(frame)
        except av.error.FFmpegError as error:
            raise PictureError(str(error)) from error


class H264Encoder:
    """Encodes what one client is shown."""

    def __init__(self) -> None:
        """Begin with a key frame."""
        self._codec: VideoCodecContext | None = None
        self._convert, self._frames = Yuv420FromRgb(), 0

    def encode(self, picture: Picture) -> tuple[int, Encoded]:
        """Encode uint8 [H, W, 3], sides even; return the kind of the frame, and the frame."""
        start = time.perf_counter()
        height, width = picture.shape[:2]
        if self._codec is None or (self._codec.width, self._codec.height) != (width, height):
            self._codec = _encoder(width, height)
        frame = self._convert(picture)
        frame.pts, frame.time_base = self._frames, Fraction(1, _RATE)
        self._frames += 1
        (packet,) = self._codec.encode(frame)
        kind = H264_KEY if packet.is_keyframe else H264_DELTA
        return kind, Encoded(bytes(packet), time.perf_counter() - start)


def _encoder(width: int, height: int) -> VideoCodecContext:
    codec = VideoCodecContext.create("libx264", "w")
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.time_base, codec.framerate = Fraction(1, _RATE), Fraction(_RATE)
    codec.gop_size, codec.max_b_frames, codec.options = _KEY_EVERY, 0, dict(_OPTIONS)
    return codec
