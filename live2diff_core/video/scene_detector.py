"""Where scenes begin: FFmpeg's detector, frame by frame."""

from __future__ import annotations

from fractions import Fraction

from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from .frame import Image

# Of 0..100; FFmpeg's default.
THRESHOLD = 10.0
# Frames before the current one that the detector's answer depends on.
FRAMES_BEHIND = 2
_SCORE = "lavfi.scd.score"


class SceneDetector:
    """Compares each frame with those before it; the first frame begins no scene.

    Args:
        width, height: of the frames.
        threshold: of the score, 0..100, from which on a scene begins.
    """

    def __init__(self, width: int, height: int, threshold: float = THRESHOLD) -> None:
        """Open the detector."""
        self._graph, self._threshold, self._frames = Graph(), threshold, 0
        buffer = self._graph.add_buffer(
            width=width, height=height, format=VideoFormat("rgb24"), time_base=Fraction(1, 25)
        )
        detector = self._graph.add("scdet", f"t={threshold}")
        sink = self._graph.add("buffersink")
        buffer.link_to(detector)
        detector.link_to(sink)
        self._graph.configure()

    def begins(self, image: Image) -> bool:
        """Look at the next frame, uint8 [H, W, 3]; return whether a scene begins with it."""
        frame = VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts = self._frames
        self._frames += 1
        self._graph.push(frame)
        score = self._graph.pull().metadata.get(_SCORE, "0")
        return self._frames > 1 and float(score) >= self._threshold
