"""Trains the sample's depth network on rendered scenes, whose depth is known exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from live2diff_core.sample_model.depth import SampleDepth, relative

from .autoencoder import to_tensor
from .fitting import Plan, fit
from .scene_maker import SceneMaker

SIDE, COUNT, BATCH = 192, 2400, 8
PLAN = Plan(minutes=13, rate=2e-3)


def scenes(maker: SceneMaker, folder: Path, count: int = COUNT) -> tuple[np.ndarray, np.ndarray]:
    """Open pictures [count, SIDE, SIDE, 3] uint8 and their inverse depth [count, SIDE, SIDE].

    What is missing is rendered; scene n depends on n alone.
    """
    pictures = _opened(folder / "scenes.npy", np.uint8, (count, SIDE, SIDE, 3))
    depths = _opened(folder / "depths.npy", np.float32, (count, SIDE, SIDE))
    for index in range(count):
        if not depths[index].any():
            picture, depth = maker.make(100_000 + index).still(SIDE)
            pictures[index] = np.rint(picture * 255)
            depths[index] = depth
    return pictures, depths


def _opened(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    mode = "r+" if path.is_file() else "w+"
    return np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=shape)


def train(pictures: np.ndarray, depths: np.ndarray, work: Path, plan: Plan = PLAN) -> SampleDepth:
    """Train on scenes; depth counts up to its range, which differs from scene to scene."""
    torch.manual_seed(0)
    network = SampleDepth()

    def loss(step: int, share: float) -> Tensor:
        random = np.random.default_rng((4, step))
        chosen, turned = random.integers(len(pictures), size=BATCH), random.random(BATCH) < 0.5
        pairs = [
            (pictures[n][:, ::-1], depths[n][:, ::-1]) if turn else (pictures[n], depths[n])
            for n, turn in zip(chosen, turned, strict=True)
        ]
        shown = to_tensor(np.stack([pair[0] for pair in pairs]))
        wanted = relative(torch.from_numpy(np.stack([pair[1] for pair in pairs])))
        error = network(shown) - wanted
        slopes = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + slopes

    return fit(network, loss, plan, work / "depth.pt")
