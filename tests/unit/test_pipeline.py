"""Pipelined denoising: what each model call is made of."""

from collections import Counter

import pytest
import torch
import toy_stream as toy

from live2diff_core.live2diff.window import AttentionMode, AttentionWindow
from live2diff_core.stream.call_plan import CallPlan, Row
from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.pipeline import PipelinedDenoiser

CAUSAL = AttentionWindow(5, 1, AttentionMode.CAUSAL)


def rows(model):
    return [[(row.frame, row.step) for row in plan.rows] for plan in model.plans]


def test_rows_are_the_papers():
    """Row i is i steps old; empty rows never reach the model, while it fills or drains."""
    model = toy.ToyModel()
    toy.stream(model, toy.frames(4), None, 3, CAUSAL)
    assert rows(model) == [
        [(0, 0)],
        [(1, 0), (0, 1)],
        [(2, 0), (1, 1), (0, 2)],
        [(3, 0), (2, 1), (1, 2)],
        [(3, 1), (2, 2)],
        [(3, 2)],
    ]


def test_warmup_shares_calls_and_leaves_before_the_stream_starts():
    model = toy.ToyModel()
    toy.stream(model, toy.frames(5), None, 2, AttentionWindow(5, 3))
    assert rows(model) == [
        [(0, 0), (1, 0), (2, 0)],
        [(0, 1), (1, 1), (2, 1)],
        [(3, 0)],
        [(4, 0), (3, 1)],
        [(4, 1)],
    ]


def test_one_call_per_frame_once_full():
    model = toy.ToyModel()
    toy.stream(model, toy.frames(40), None, 4, AttentionWindow())
    assert len(model.plans) == 4 + 32 + 3  # warm-up, frames, tail


@pytest.mark.parametrize("config", [None, CAUSAL])
def test_depth_of_every_row_is_its_frames(config):
    model = toy.ToyModel()
    latents = toy.frames(6)
    toy.stream(model, latents, torch.arange(6.0).view(6, 1, 1, 1).expand_as(latents), 3, config)
    for plan in model.plans:
        assert plan.depth[:, 0, 0, 0].tolist() == [row.frame for row in plan.rows]


def test_noise_is_asked_for_once_per_frame_and_step():
    asked = []

    def noise(frame, step, shape):
        asked.append((frame, step))
        return FrameNoise(0)(frame, step, shape)

    model, denoiser = toy.ToyModel(), PipelinedDenoiser(toy.schedule(3), noise)
    for frame, latent in enumerate(toy.frames(9)):
        denoiser.advance(model, denoiser.enter(frame, frame, latent, None))
    steady = [asked.count((frame, step)) for frame in range(2, 7) for step in range(3)]
    assert steady == [1] * 15
    # The first call of each size is a surprise; the noise of all others was drawn before it.
    assert set(Counter(asked).values()) <= {1, 2}


def test_split_by_step_keeps_rows_with_their_depth():
    plan = CallPlan(
        rows=(Row(9, 0), Row(8, 1), Row(7, 2)),
        steps=torch.arange(3),
        depth=torch.arange(3.0).view(3, 1, 1, 1),
    )
    parts = list(plan.by_step())
    assert [part.rows for _, part in parts] == [(Row(9, 0),), (Row(8, 1),), (Row(7, 2),)]
    assert [part.depth.item() for _, part in parts] == [0, 1, 2]
    assert [part.steps.tolist() for _, part in parts] == [[0], [1], [2]]
    warmup = CallPlan(rows=(Row(0, 1), Row(1, 1)), steps=torch.tensor([1, 1]))
    assert [(rows, part.rows) for rows, part in warmup.by_step()] == [(slice(0, 2), warmup.rows)]


@pytest.mark.parametrize("config", [CAUSAL, AttentionWindow(5, 3)])
def test_split_by_step_gives_the_same(config):
    """Hosts that must run each step by itself get the same frames."""
    model = toy.ToyModel()

    def split(x, plan):
        return torch.cat([model(x[rows], part) for rows, part in plan.by_step()])

    split.open_memory = model.open_memory
    latents = toy.frames(9)
    whole = toy.stream(toy.ToyModel(), latents, latents, 3, config)
    torch.testing.assert_close(
        toy.stream(split, latents, latents, 3, config), whole, rtol=1e-6, atol=1e-6
    )
