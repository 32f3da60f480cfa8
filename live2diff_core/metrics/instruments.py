"""Chooses what a video is measured with, from what there is, and says what is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from .clip_score import Embedder
from .depth_error import DepthEstimator
from .flow import DISFlow, FlowEstimator
from .measurement import Instruments
from .raft import find_raft
from .scene_cuts import SceneCuts

FlowChoice = Literal["auto", "RAFT", "DIS", "none"]
FLOW_CHOICES: tuple[FlowChoice, ...] = ("auto", "RAFT", "DIS", "none")


def choose_instruments(
    flow: FlowChoice,
    raft_folders: list[Path],
    open_raft: Callable[[Path], FlowEstimator],
    depth: DepthEstimator | None = None,
    clip: Embedder | None = None,
    row: float = 0.5,
) -> Instruments:
    """Collect the instruments. What is missing, and was not asked for by name, becomes a note.

    Args:
        flow: `auto` is RAFT where its weights are in one of `raft_folders`, else DIS.
        raft_folders: where RAFT's weights may be.
        open_raft: makes an estimator of the file that was found.
        depth, clip: networks, if there are any.
        row: see `Instruments`.

    Raises:
        FileNotFoundError: RAFT was asked for, and is not there.
        ImportError: DIS was asked for, and OpenCV is missing.
    """
    notes: dict[str, str] = {}
    estimate = None
    try:
        estimate = _flow(flow, raft_folders, open_raft)
    except ImportError as error:
        if flow != "auto":
            raise
        notes["Not measured, warp errors and MAWE"] = str(error)
    if estimate is not None:
        notes["Optical flow"] = getattr(estimate, "name", "of your own")
    if depth is None:
        notes["Not measured, depth MSE"] = "it needs a depth model."
    if clip is None:
        notes["Not measured, CLIP score"] = "it needs a CLIP vision model."
    cuts: Callable[[], SceneCuts] | None = SceneCuts
    try:
        SceneCuts()
    except ImportError as error:
        cuts = None
        notes["Not measured, scene cuts"] = str(error)
    return Instruments(estimate, depth, clip, cuts, notes, row)


def _flow(
    choice: FlowChoice, folders: list[Path], open_raft: Callable[[Path], FlowEstimator]
) -> FlowEstimator | None:
    if choice == "none":
        return None
    weights = find_raft(folders) if choice in ("auto", "RAFT") else None
    if weights is not None:
        return open_raft(weights)
    if choice == "RAFT":
        places = ", ".join(map(str, folders)) or "models/optical_flow"
        raise FileNotFoundError(
            "RAFT was asked for, but there is no file raft_large*.pth in "
            f"{places}. Put torchvision's raft_large_C_T_SKHT_V2-ff5fadd5.pth (21 MB) there, or "
            "choose DIS, which needs no weights."
        )
    return DISFlow()


def depth_estimator(model: Any) -> DepthEstimator:
    """Measure with a `DepthModel`, or another object with its `predict`."""

    def estimate(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch.from_numpy(pictures).float() / 255
        return model.predict(images).float().cpu().numpy()

    return estimate


def clip_embedder(clip_vision: Any) -> Embedder:
    """Measure with ComfyUI's CLIP_VISION, which crops the middle of the picture."""

    def embed(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        image = torch.from_numpy(np.array(picture))[None].float() / 255
        embedding = clip_vision.encode_image(image)["image_embeds"]
        return embedding[0].float().cpu().numpy()

    return embed
