"""Scene cuts, as StreamingT2V counts them."""

from __future__ import annotations

import numpy as np

from .frames import Picture

NO_PYSCENEDETECT = (
    "Scene cuts are counted by PySceneDetect, which is missing. Install it with: "
    "pip install scenedetect-headless (with the Python that runs ComfyUI). It uses OpenCV; where "
    "there is an opencv-python already: pip install --no-deps scenedetect-headless platformdirs."
)
# Only a label: the detector counts frames.
_FRAME_RATE = 25.0


class SceneCuts:
    """SCuts: the number of cuts that PySceneDetect's AdaptiveDetector finds, 0 and more.

    With its default parameters, on pictures scaled down as PySceneDetect does it by itself. A cut
    within 15 frames of the beginning or of another cut does not count. Lower is better, where the
    input has none.

    Source: Henschel et al., "StreamingT2V", section 5.2; https://www.scenedetect.com (BSD-3).
    """

    def __init__(self) -> None:
        """Open the detector.

        Raises:
            ImportError: there is no PySceneDetect; the message says how to get it.
        """
        try:
            import cv2
            from scenedetect import FrameTimecode
            from scenedetect.detectors import AdaptiveDetector
            from scenedetect.scene_manager import compute_downscale_factor
        except ImportError as error:
            raise ImportError(NO_PYSCENEDETECT) from error
        self._cv2, self._time, self._factor = cv2, FrameTimecode, compute_downscale_factor
        self._detector = AdaptiveDetector()
        self._frames = self.count = 0

    def add(self, picture: Picture) -> None:
        """Look at the next frame; a cut is counted two frames later."""
        height, width = picture.shape[:2]
        factor = self._factor(max(width, height))
        image = np.ascontiguousarray(picture[..., ::-1])
        if factor > 1:
            size = max(1, round(width / factor)), max(1, round(height / factor))
            image = self._cv2.resize(image, size, interpolation=self._cv2.INTER_LINEAR)
        time = self._time(self._frames, _FRAME_RATE)
        self.count += len(self._detector.process_frame(time, image))
        self._frames += 1
