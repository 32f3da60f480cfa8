"""Clips in which little moves, and sessions of the toy model for them."""

import pytest
import torch
import toy_stream as toy
from fed_session import FedSession

from live2diff_core.live2diff.window import AttentionMode, AttentionWindow
from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.session import StreamSession
from live2diff_core.stream.similar_frames import SkipRule

SEED = 7
CAUSAL = AttentionWindow(6, 1, AttentionMode.CAUSAL)
CONFIGS = {"no memory": None, "warm-up": AttentionWindow(6, 3), "causal": CAUSAL}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
ALWAYS = SkipRule(0.9, 1000)


def still(count, change_at=(), seed=0):
    """[F, H, W, 3] pictures in 0..1: one picture until a change, then another."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for frame in range(count):
        if frame == 0 or frame in change_at:
            picture = torch.rand(*toy.SIZE, 3, generator=generator)
        images.append(picture)
    return torch.stack(images)


def opened(config, steps, noise=None, timelines=()):
    memory = config and toy.motion_memory(config, {"positive": steps})
    noise = noise or FrameNoise(SEED)
    model = toy.ToyModel(timelines=timelines)
    return FedSession(StreamSession(toy.schedule(steps), noise, memory), model)


def noisy(count, amount, seed=0):
    """One picture with a little noise on each frame."""
    generator = torch.Generator().manual_seed(seed)
    return still(count) + amount * torch.randn(count, *toy.SIZE, 3, generator=generator)
