"""The metrics by name: what people read about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A metric as reports show it.

    Attributes:
        name: key in JSON.
        title: for tables and plots.
        better: "lower", "higher", or "" where neither is.
        decimals: how many are shown.
    """

    name: str
    title: str
    better: str = "lower"
    decimals: int = 4


DEPTH_MSE = Metric("depth_mse", "Depth MSE (0..1)", decimals=5)
CLIP_SCORE = Metric("clip_score", "CLIP score of adjacent frames (x100)", "higher", 2)
WARP_ERROR = Metric("warp_error", "Warp error, the input's flow (0..1)", decimals=5)
OWN_WARP_ERROR = Metric("warp_error_own_flow", "Warp error, its own flow (0..1)", decimals=5)
VISIBLE = Metric("visible_share", "Share of pixels compared with the input's flow", "", 3)
FLICKER = Metric("flicker", "Flicker in still regions (0..1)", decimals=5)
STILL = Metric("still_share", "Share of pixels that stand still in the input", "", 3)
MAWE = Metric("mawe", "MAWE (StreamingT2V's code)")
MAWE_PAPER = Metric("mawe_paper", "MAWE (StreamingT2V's paper)")
CUTS = Metric("scene_cuts", "Scene cuts", decimals=0)
INPUT_CUTS = Metric("scene_cuts_input", "Scene cuts of the input", "", 0)

METRICS = (
    DEPTH_MSE,
    CLIP_SCORE,
    WARP_ERROR,
    OWN_WARP_ERROR,
    VISIBLE,
    FLICKER,
    STILL,
    MAWE,
    MAWE_PAPER,
    CUTS,
    INPUT_CUTS,
)
