"""Small clips rendered with exact optical flow, occlusions and depth."""

from typing import NamedTuple

import numpy as np

SIZE = (96, 80)  # width, height
SIDE, VELOCITY = 28, (3, -1)


class Rendered(NamedTuple):
    """A clip and what is true of it.

    Attributes:
        frames: uint8 [F, H, W, 3].
        forward: float32 [F - 1, H, W, 2], from each frame to the next.
        backward: float32 [F - 1, H, W, 2], from each frame but the first to the one before.
        seen: bool [F - 1, H, W]: what of each frame but the first is in the one before.
        depth: float32 [F, H, W], inverse; larger is nearer.
    """

    frames: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    seen: np.ndarray
    depth: np.ndarray


def texture(width, height, seed, waves=24):
    """A smooth random function of x and y, float64 [height, width, 3] in 0..1."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    total = np.zeros((height, width, 3))
    for _ in range(waves):
        across, down = generator.uniform(-0.6, 0.6, 2)
        phase = generator.uniform(0, 2 * np.pi, 3)
        total += np.sin(across * x[..., None] + down * y[..., None] + phase)
    return np.clip(0.5 + total / (2 * np.sqrt(waves)), 0, 1)


def translating(frames, velocity=VELOCITY, seed=0, size=SIZE):
    """A textured plane that moves by whole pixels per frame."""
    width, height = size
    reach = frames * (abs(velocity[0]) + abs(velocity[1])) + 1
    plane = texture(width + 2 * reach, height + 2 * reach, seed)
    pictures = []
    for frame in range(frames):
        left, top = (reach - frame * step for step in velocity)
        pictures.append(plane[top : top + height, left : left + width])
    flow = np.full((frames - 1, height, width, 2), velocity, np.float32)
    seen = _inside(-flow)
    depth = np.ones((frames, height, width), np.float32)
    return Rendered(_bytes(pictures), flow, -flow, seen, depth)


def moving_square(frames, velocity=VELOCITY, seed=0, size=SIZE):
    """A textured square before a still background, which it covers and uncovers."""
    width, height = size
    ground, square = texture(width, height, seed), texture(SIDE, SIDE, seed + 1)
    masks, pictures = [], []
    for frame in range(frames):
        left = 8 + frame * velocity[0]
        top = height - SIDE - 8 + frame * velocity[1]
        assert 0 <= left <= width - SIDE and 0 <= top <= height - SIDE, "the square leaves"
        picture, mask = ground.copy(), np.zeros((height, width), bool)
        picture[top : top + SIDE, left : left + SIDE] = square
        mask[top : top + SIDE, left : left + SIDE] = True
        pictures.append(picture)
        masks.append(mask)
    forward = np.stack([mask[..., None] * np.float32(velocity) for mask in masks[:-1]])
    backward = np.stack([mask[..., None] * -np.float32(velocity) for mask in masks[1:]])
    # Background that the square has just left was not seen in the frame before.
    seen = np.stack([now | ~before for before, now in zip(masks, masks[1:], strict=False)])
    depth = np.stack([np.where(mask, 2.0, 1.0) for mask in masks]).astype(np.float32)
    return Rendered(_bytes(pictures), forward, backward, seen, depth)


def still(frames, seed=0, size=SIZE):
    """The same picture over and over: uint8 [F, H, W, 3]."""
    return np.repeat(_bytes([texture(*size, seed)]), frames, axis=0)


def brighter(frames, levels):
    """Add to every second frame, as flicker; the result is clipped."""
    added = np.zeros((len(frames), 1, 1, 1), np.int16)
    added[1::2] = levels
    return np.clip(frames.astype(np.int16) + added, 0, 255).astype(np.uint8)


def _bytes(pictures):
    return np.stack([np.rint(picture * 255).astype(np.uint8) for picture in pictures])


def _inside(flow):
    height, width = flow.shape[1:3]
    y, x = np.mgrid[:height, :width]
    x, y = x + flow[..., 0], y + flow[..., 1]
    return (x >= 0) & (x < width) & (y >= 0) & (y < height)
