"""The schedule is made on the CPU, wherever the host has left the model's noise levels."""

import pytest
import torch
from host_stream import core, patched
from pretended_device import AWAY, PretendedDevice


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, 4, 2)


@pytest.mark.parametrize("sigmas", [None, torch.tensor([4.0, 1.5, 0.0])], ids=["own", "given"])
@pytest.mark.parametrize("rule", ["lcm", "x0"])
def test_the_schedule_of_a_loaded_model_is_that_of_a_fresh_one(model, sigmas, rule):
    sd15, rule = core("host.sd15"), core("stream.schedule").StepRule(rule)
    fresh = sd15.host_schedule(model, 4, 0.75, sigmas, rule)
    # As the host leaves them behind after a run; the next run begins with the schedule.
    with PretendedDevice():
        model.get_model_object("model_sampling").to(AWAY)
        assert model.get_model_object("model_sampling").sigmas.device == AWAY
        again = sd15.host_schedule(model, 4, 0.75, sigmas, rule)
    assert again.timesteps == fresh.timesteps
    for name in ("sqrt_alpha", "sqrt_beta", "c_skip", "c_out", "sigmas"):
        found = torch.as_tensor(getattr(again, name))
        assert found.device.type == "cpu"
        assert torch.equal(found, torch.as_tensor(getattr(fresh, name)))
