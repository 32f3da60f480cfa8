"""The schedule against recorded values, and its refusals."""

import numpy
import pytest
import torch
from safetensors.torch import load_file

from live2diff_core.stream.schedule import (
    ConsistencySchedule,
    few_step_timesteps,
    linear_beta_alphas_cumprod,
)


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_recorded_values(golden_folder, steps):
    trace = load_file(str(golden_folder / f"trace-T{steps}.safetensors"))
    schedule = ConsistencySchedule.few_step(linear_beta_alphas_cumprod(), 4, steps / 4)
    assert list(schedule.timesteps) == trace["timesteps"].tolist()
    for name in ("sqrt_alpha", "sqrt_beta", "c_skip", "c_out"):
        ours = torch.tensor(getattr(schedule, name))
        torch.testing.assert_close(ours, trace[name], rtol=1e-6, atol=1e-9)


def test_the_papers_two_steps():
    assert few_step_timesteps(4, 0.5) == [499, 259]


@pytest.mark.parametrize("steps", range(1, 51))
def test_timesteps_are_diffusers(steps):
    """LCMScheduler samples its 50 training steps at floor(linspace(0, 50, steps))."""
    origin = numpy.arange(1, 51)[::-1] * 20 - 1
    indices = numpy.floor(numpy.linspace(0, 50, num=steps, endpoint=False)).astype(int)
    assert few_step_timesteps(steps, 1.0) == origin[indices].tolist()


@pytest.mark.parametrize("steps", range(1, 51))
def test_every_denoise_of_two_decimals(steps):
    """T is steps * denoise rounded down, as a person would reckon it."""
    for percent in range(1, 101):
        kept = steps * percent // 100
        if kept:
            timesteps = few_step_timesteps(steps, percent / 100)
            assert timesteps == few_step_timesteps(steps, 1.0)[steps - kept :]
        else:
            with pytest.raises(ValueError, match="leave no denoising step"):
                few_step_timesteps(steps, percent / 100)


def test_the_remedy_works():
    with pytest.raises(ValueError, match=r"Raise denoise to at least 0\.34"):
        few_step_timesteps(3, 0.3)
    assert len(few_step_timesteps(3, 0.34)) == 1


@pytest.mark.parametrize("steps", [0, -1, 51])
def test_steps_out_of_range(steps):
    with pytest.raises(ValueError, match=f"steps is {steps}"):
        few_step_timesteps(steps, 0.5)


@pytest.mark.parametrize(
    "denoise, message",
    [
        (1.01, "more denoising steps than the 4 steps"),
        (2.0, "more denoising steps"),
        (0.0, "leave no denoising step"),
        (-0.5, "leave no denoising step"),
        (float("nan"), "denoise is nan"),
    ],
)
def test_denoise_out_of_range(denoise, message):
    with pytest.raises(ValueError, match=message):
        few_step_timesteps(4, denoise)


def test_more_steps_than_supported():
    with pytest.raises(ValueError, match="9 denoising steps; 1 to 8"):
        ConsistencySchedule.few_step(linear_beta_alphas_cumprod(), 9, 1.0)
    assert len(ConsistencySchedule.few_step(linear_beta_alphas_cumprod(), 8, 1.0)) == 8


@pytest.mark.parametrize(
    "sigmas, message",
    [
        ([1.0, 2.0], "must fall"),
        ([2.0, 2.0], "must fall"),
        ([2.0, 0.0], "above 0"),
        ([2.0, -1.0], "above 0"),
        ([float("nan"), 1.0], "finite"),
        ([float("inf"), 1.0], "finite"),
        ([], "no noise level"),
        ([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0], "9 denoising steps"),
    ],
)
def test_sigmas_that_are_no_schedule(sigmas, message):
    with pytest.raises(ValueError, match=message):
        ConsistencySchedule.from_sigmas(torch.tensor(sigmas), [0.0] * len(sigmas))


def test_sigmas_give_the_same_schedule():
    lcm = ConsistencySchedule.few_step(linear_beta_alphas_cumprod(), 4, 0.75)
    same = ConsistencySchedule.from_sigmas(torch.tensor(lcm.sigmas), lcm.timesteps)
    assert same.timesteps == lcm.timesteps
    for name in ("sqrt_alpha", "sqrt_beta", "c_skip", "c_out"):
        assert getattr(same, name) == pytest.approx(getattr(lcm, name), rel=1e-6, abs=1e-7)


def test_signal_and_noise_add_up():
    schedule = ConsistencySchedule.few_step(linear_beta_alphas_cumprod(), 8, 1.0)
    pairs = zip(schedule.sqrt_alpha, schedule.sqrt_beta, strict=True)
    assert [alpha**2 + beta**2 for alpha, beta in pairs] == pytest.approx([1.0] * 8, rel=1e-6)
    x0, noise = torch.randn(2, 4, 3, 3)
    noised = schedule.add_noise(x0, noise, 3)
    torch.testing.assert_close(noised, schedule.sqrt_alpha[3] * x0 + schedule.sqrt_beta[3] * noise)
    assert list(schedule.sigmas) == sorted(schedule.sigmas, reverse=True)
