"""Residual guidance: streamed and pipelined, against StreamDiffusion's recurrence written out."""

import pytest
import torch
import toy_stream as toy
from fed_session import FedSession
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_core.live2diff.window import AttentionWindow
from live2diff_core.stream.call_plan import Pass
from live2diff_core.stream.guidance import Guidance, GuidanceMode
from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.session import StreamSession

COUNT, SEED = 9, 7
MEMORIES = {"no memory": None, "memory": AttentionWindow(6, 3)}
every_memory = pytest.mark.parametrize("config", MEMORIES.values(), ids=MEMORIES)
every_mode = pytest.mark.parametrize("mode", [mode.value for mode in GuidanceMode])


class Prompt(toy.ToyModel):
    """A toy model that differs from others without a memory, too."""

    def __init__(self, seed, gain):
        super().__init__(seed)
        self.gain = gain

    def __call__(self, x, plan):
        return self.gain * super().__call__(x, plan)

    def whole_sequence(self, x, depth, config):
        return self.gain * super().whole_sequence(x, depth, config)


class GuidedModel:
    """A toy model for each prompt; `full` guidance is the model's own. Counts its rows."""

    def __init__(self, guidance):
        self.guidance, self.rows = guidance, 0
        self.positive, self.other = Prompt(0, 1.0), Prompt(1, 0.6)
        self.other.place, self.other.index = Pass(1, 0), 1

    def __call__(self, x, plan):
        self.rows += len(x)
        denoised = self.positive(x, plan)
        if self.guidance.active is not GuidanceMode.FULL:
            return denoised
        negative = self.negative(x, plan)
        return negative + self.guidance.scale * (denoised - negative)

    def negative(self, x, plan):
        self.rows += len(x)
        return self.other(x, plan)

    def open_memory(self, memory):
        toy.open_motion(memory, [self.positive, self.other])


def opened(guidance, steps, config):
    memory = config and toy.motion_memory(config, guidance.steps(steps), attentions=2)
    model = GuidedModel(guidance)
    session = StreamSession(toy.schedule(steps), FrameNoise(SEED), memory, guidance)
    return FedSession(session, model)


def clip(count=COUNT):
    return toy.frames(count), toy.frames(count, seed=1)


def stream(guidance, steps, config, count=COUNT):
    session = opened(guidance, steps, config)
    return torch.cat([session.push_all(*clip(count)), session.flush()])


def written_out(guidance, steps, config):
    """The whole clip, step by step, in eps: nothing streamed, cached or pipelined."""
    levels, model, (latents, depth) = toy.schedule(steps), GuidedModel(guidance), clip()
    scale, delta, mode = guidance.scale, guidance.delta, guidance.mode

    def noise(step):
        return torch.stack([FrameNoise(SEED)(f, step, latents.shape[1:]) for f in range(COUNT)])

    stock = noise(0)
    x = levels.sqrt_alpha[0] * latents + levels.sqrt_beta[0] * stock
    for step in range(steps):
        alpha, beta = levels.sqrt_alpha[step], levels.sqrt_beta[step]
        c_skip, c_out = levels.c_skip[step], levels.c_out[step]

        def eps(prompt, x=x, alpha=alpha, beta=beta):
            return (x - alpha * prompt.whole_sequence(x, depth, config)) / beta

        if mode is GuidanceMode.INITIALIZE and step == 0:
            stock = eps(model.other)
        negative = eps(model.other) if mode is GuidanceMode.FULL else delta * stock
        guided = eps(model.positive)
        if mode is not GuidanceMode.NONE:
            guided = negative + scale * (guided - negative)
        x0 = c_out * (x - beta * guided) / alpha + c_skip * x
        if step + 1 == steps:
            return x0
        left = c_out * (beta * stock - beta * guided) / alpha + c_skip * beta * stock
        alpha, beta = levels.sqrt_alpha[step + 1], levels.sqrt_beta[step + 1]
        stock = noise(step + 1) + alpha / beta * left
        x = alpha * x0 + beta * noise(step + 1)


@every_memory
@every_mode
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_streamed_is_written_out(mode, steps, config):
    for scale, delta in ((1.4, 1.0), (2.5, 0.6), (0.5, 1.2)):
        guidance = Guidance(scale, mode, delta)
        expected = written_out(guidance, steps, config)
        error = (stream(guidance, steps, config) - expected).abs().max() / expected.abs().max()
        assert error < 1e-5


@every_memory
@every_mode
def test_scale_1_is_no_guidance(mode, config):
    unguided = stream(Guidance(4.0, "none"), 3, config)
    assert torch.equal(stream(Guidance(1.0, mode, 0.3), 3, config), unguided)
    if mode != "none":
        assert not torch.allclose(stream(Guidance(1.5, mode, 0.3), 3, config), unguided, rtol=0.01)


def test_delta_is_for_the_virtual_noise_only():
    for mode in GuidanceMode:
        weak, strong = (stream(Guidance(1.5, mode, delta), 3, None) for delta in (0.5, 1.0))
        virtual = mode in (GuidanceMode.SELF, GuidanceMode.INITIALIZE)
        assert torch.equal(weak, strong) != virtual


@every_memory
@every_mode
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
@pytest.mark.parametrize("scale", [1.0, 1.5])
def test_rows_per_frame(mode, steps, config, scale):
    """Also while the pipeline fills and drains: there are no rows without a frame."""
    guidance = Guidance(scale, mode)
    documented = {"none": steps, "full": 2 * steps, "self": steps, "initialize": steps + 1}
    rows = documented[mode] if scale != 1.0 else steps
    assert sum(guidance.steps(steps).values()) == rows
    session = opened(guidance, steps, config)
    session.push_all(*clip(20))
    session.flush()
    assert session.model.rows == 20 * rows


def test_the_mode_goes_by_its_name():
    assert Guidance(2.0, "self").mode is GuidanceMode.SELF
    with pytest.raises(ValueError, match="half"):
        Guidance(2.0, "half")


@every_memory
@every_mode
@given(data=st.data())
@settings(deadline=None, max_examples=8)
def test_neither_cuts_nor_saves_change_anything(mode, config, data):
    guidance, steps = Guidance(1.7, mode, 0.8), data.draw(st.integers(1, 4))
    cuts = sorted(data.draw(st.sets(st.integers(1, COUNT), max_size=4)))
    latents, depth = clip()
    session, parts = opened(guidance, steps, config), []
    for start, stop in zip([0, *cuts], [*cuts, COUNT], strict=True):
        state = {name: tensor.clone() for name, tensor in session.state_dict().items()}
        session = opened(guidance, steps, config)
        session.load_state_dict(state)
        parts.append(session.push_all(latents[start:stop], depth[start:stop]))
    found = torch.cat([*parts, session.flush()])
    assert torch.equal(found, stream(guidance, steps, config))


def test_the_residual_noise_is_in_the_state():
    session = opened(Guidance(1.5, "self"), 3, None)
    session.push_all(*clip())
    names = [name for name in session.state_dict() if name.endswith(".residual")]
    assert names == ["flight.0.residual", "flight.1.residual"]


@every_memory
@every_mode
@pytest.mark.parametrize("prompt", ["positive", "other"])
@pytest.mark.parametrize("call", range(1, 9, 2))
def test_a_failed_call_can_be_repeated(mode, config, prompt, call):
    """Either pass fails after it has written its caches; the frame is pushed again."""
    guidance, (latents, depth) = Guidance(1.7, mode, 0.8), clip()
    session, found, failures = opened(guidance, 3, config), [], 0
    failing = getattr(session.model, prompt)
    failing.fail_at = call
    for frame in zip(latents, depth, strict=True):
        try:
            found += session.push(*frame)
        except InterruptedError:
            failures += 1
            found += session.push(*frame)
    found += session.drain()
    assert failures == (call <= len(failing.plans))
    assert torch.equal(torch.stack(found), stream(guidance, 3, config))
