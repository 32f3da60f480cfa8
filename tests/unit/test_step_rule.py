"""Few-step models other than LCM: evenly spaced steps, x0 taken as it is and noised again."""

import numpy
import pytest
import torch
import toy_stream as toy
from fed_session import FedSession

from live2diff_core.live2diff.window import AttentionWindow
from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.schedule import (
    ConsistencySchedule,
    StepRule,
    few_step_timesteps,
    linear_beta_alphas_cumprod,
)
from live2diff_core.stream.session import StreamSession


def x0_schedule(steps, denoise=1.0):
    return ConsistencySchedule.few_step(linear_beta_alphas_cumprod(), steps, denoise, StepRule.X0)


@pytest.mark.parametrize(
    "steps, timesteps",
    [(1, [999]), (2, [999, 499]), (3, [999, 666, 332]), (4, [999, 749, 499, 249])],
)
def test_timesteps_of_sd_turbo(steps, timesteps):
    assert few_step_timesteps(steps, 1.0, StepRule.X0) == timesteps


@pytest.mark.parametrize("steps", range(1, 51))
def test_timesteps_are_diffusers_trailing(steps):
    trailing = numpy.round(1000 - numpy.arange(steps) * (1000 / steps)).astype(int) - 1
    found = few_step_timesteps(steps, 1.0, StepRule.X0)
    assert found == trailing.tolist()
    assert all(before > after >= 0 for before, after in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_denoise_keeps_the_last_steps(steps):
    whole = few_step_timesteps(steps, 1.0, StepRule.X0)
    for kept in range(1, steps + 1):
        assert few_step_timesteps(steps, kept / steps, StepRule.X0) == whole[steps - kept :]
    with pytest.raises(ValueError, match="leave no denoising step"):
        few_step_timesteps(steps, 0.5 / steps, StepRule.X0)


def test_no_boundary_scalings():
    made = x0_schedule(4)
    given = ConsistencySchedule.from_sigmas(torch.tensor(made.sigmas), made.timesteps, StepRule.X0)
    for schedule in (made, given):
        assert schedule.c_skip == (0,) * 4 and schedule.c_out == (1,) * 4
    lcm = ConsistencySchedule.from_sigmas(torch.tensor(made.sigmas), made.timesteps)
    assert all(lcm.c_skip)


@pytest.mark.parametrize("name", StepRule)
def test_noise_levels_are_the_models_at_the_timesteps(name):
    alphas = linear_beta_alphas_cumprod()
    schedule = ConsistencySchedule.few_step(alphas, 4, 0.5, name)
    kept = alphas[list(schedule.timesteps)]
    torch.testing.assert_close(
        torch.tensor(schedule.sqrt_alpha).double() ** 2, kept, rtol=1e-6, atol=0
    )
    torch.testing.assert_close(
        torch.tensor(schedule.sqrt_beta).double() ** 2, 1 - kept, rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("config", [None, AttentionWindow(6, 3)], ids=["no memory", "memory"])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_streamed_is_a_plain_loop(config, steps):
    """x0 = model(x); x = sqrt_alpha x0 + sqrt_beta noise. All frames at once, step by step."""
    latents, levels, noise = toy.frames(9), x0_schedule(steps), FrameNoise(7)
    x0 = latents
    for alpha, beta, step in zip(levels.sqrt_alpha, levels.sqrt_beta, range(steps), strict=True):
        fresh = torch.stack([noise(f, step, x0.shape[1:]) for f in range(len(x0))])
        x0 = toy.ToyModel().whole_sequence(alpha * x0 + beta * fresh, None, config)
    memory = config and toy.motion_memory(config, {"positive": steps})
    session = FedSession(StreamSession(levels, noise, memory), toy.ToyModel())
    found = torch.cat([session.push_all(latents), session.flush()])
    torch.testing.assert_close(found, x0, rtol=1e-5, atol=1e-5)
