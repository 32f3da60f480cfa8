"""One window in training is what a stream computes, frame by frame; gradients and the loss."""

import pytest
import torch
from tiny_training import SIZE, tiny_base, tiny_options

MODES = ["bidirectional", "sliding", "causal", "causal_warmup"]
TIMESTEP = 500
LATENT = (SIZE[1] // 8, SIZE[0] // 8)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def config(**changes):
    from pathlib import Path

    from training.config_file import make_config

    options = tiny_options(Path("unused"), window_size=6, warmup_frames=3, depth=True)
    return make_config({**options, **changes})


def trainee(base, strong=True, **changes):
    """A trainee, whose motion module is far from doing nothing where it is `strong`."""
    from training.initial import initial_motion_model
    from training.trainee import Trainee

    settings = config(**changes)
    motion = initial_motion_model(settings, base.model)
    if strong:
        with torch.no_grad():
            for index, (name, weight) in enumerate(motion.named_parameters()):
                if "proj_out" in name or "flow_conv_in.conv_out" in name:
                    weight.copy_(random(*weight.shape, seed=index) * 0.2)
    made = Trainee(settings, base.model, motion)
    made.window_model.load()
    return made


def batch(windows=2, frames=6, source=False):
    from training.windows import Batch

    shape = (windows, frames, 4, *LATENT)
    target = random(*shape, seed=1)
    return Batch(
        target=target,
        start=random(*shape, seed=2) if source else target,
        noise=random(*shape, seed=3),
        timesteps=torch.tensor([TIMESTEP, 20][:windows]),
        text=random(windows, 4, 768, seed=4),
        depth=random(*shape, seed=5),
    )


@torch.no_grad()
def streamed(base, made, file, windows, mode):
    """x0 of the first window as a user's stream computes it, frame by frame, in one step."""
    from live2diff_core.live2diff.patch import apply_live2diff, load_motion_module
    from live2diff_core.run.spec import StreamOptions, StreamSpec
    from live2diff_core.stream.memory import start_memories
    from live2diff_core.stream.schedule import StepRule
    from live2diff_core.stream.session import StreamSession

    model = apply_live2diff(
        base.model, load_motion_module(str(file)), config(attention_mode=mode).window
    )
    text, sigmas = [[windows.text[:1], {}]], made.window_model.sigmas[TIMESTEP : TIMESTEP + 1]
    rule = StreamOptions(step_rule=StepRule.X0)
    spec = StreamSpec.from_inputs(model, text, text, 0, 1, 1.0, 1.0, sigmas, rule)
    memory = start_memories(model, spec.guidance.steps(1), 0)
    noise = lambda frame, step, shape: windows.noise[0, frame]  # noqa: E731
    session = StreamSession(spec.schedule, noise, memory, spec.guidance)
    with spec.open(LATENT, None) as opened:
        session.open(opened.model)
        found = []
        for latent, depth in zip(windows.start[0], windows.depth[0], strict=True):
            found += session.push(opened.model, latent, depth)
        return torch.stack([*found, *session.drain(opened.model)])


@pytest.fixture
def base():
    return tiny_base()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("recompute", [False, True])
def test_a_window_is_what_a_stream_computes(tmp_path, base, mode, recompute):
    from training.export import write_motion_module

    made = trainee(base, attention_mode=mode, gradient_checkpointing=recompute)
    file = tmp_path / "motion.safetensors"
    write_motion_module(file, made.motion, {}, torch.float32)
    windows = batch()
    sigmas = made.window_model.sigmas[windows.timesteps]
    noisy = windows.start + sigmas.view(-1, 1, 1, 1, 1) * windows.noise
    found = made.window_model(noisy, sigmas, windows.text, windows.depth).detach()
    expected = streamed(base, made, file, windows, mode)
    assert (found[0] - expected).abs().max() < 1e-4 * expected.abs().max()
    apart = expected - (noisy[0] - sigmas[0] * windows.noise[0])
    assert apart.abs().max() > 1e-2


def gradients(base, windows, **changes):
    made = trainee(base, **changes)
    made(windows).backward()
    return {name: weight.grad for name, weight in made.motion.named_parameters()}


@pytest.mark.parametrize("mode", MODES)
def test_every_motion_parameter_gets_a_gradient_and_the_unet_none(base, mode):
    found = gradients(base, batch(), attention_mode=mode)
    lacking = [name for name, grad in found.items() if grad is None or not grad.any()]
    assert lacking == []
    assert all(grad.isfinite().all() for grad in found.values())
    assert not any(p.requires_grad or p.grad is not None for p in base.model.model.parameters())


def test_computing_blocks_again_changes_no_gradient(base):
    kept = gradients(base, batch(), gradient_checkpointing=False)
    again = gradients(base, batch(), gradient_checkpointing=True)
    for name, grad in kept.items():
        assert (grad - again[name]).abs().max() <= 1e-5 * grad.abs().max(), name


def test_computing_again_saves_memory(base):
    """What is kept for the backward pass, in bytes."""

    def kept(recompute):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        made = trainee(base, gradient_checkpointing=recompute)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            made(batch())
        return sum(sizes.values())

    assert kept(True) < 0.5 * kept(False)


def test_from_nothing_a_module_changes_nothing_but_its_last_layers_learn(base):
    windows = batch()
    made = trainee(base, strong=False)
    sigmas = made.window_model.sigmas[windows.timesteps]
    with torch.no_grad():
        plain = made.window_model._base.apply_model(
            windows.start.flatten(0, 1),
            sigmas.repeat_interleave(6),
            c_crossattn=windows.text.repeat_interleave(6, 0),
            transformer_options={},
        )
        found = made.window_model(windows.start, sigmas, windows.text, windows.depth)
    assert torch.allclose(found.flatten(0, 1), plain, atol=1e-5)
    grads = gradients(base, windows, strong=False)
    learning = {name for name, grad in grads.items() if grad.any()}
    assert {n for n in grads if "proj_out" in n or "conv_out" in n} == learning


def test_seeds_decide_how_a_module_starts(base):
    one, same, other = (trainee(base, strong=False, seed=seed).motion for seed in (1, 1, 2))
    weights = [dict(model.named_parameters()) for model in (one, same, other)]
    name = next(name for name in weights[0] if "to_q" in name)
    assert torch.equal(weights[0][name], weights[1][name])
    assert not torch.equal(weights[0][name], weights[2][name])


def test_position_tables_are_those_of_the_published_file():
    """sin and cos of position / 10000^(channel / channels), written out for one entry each."""
    from training.initial import sinusoids

    table = sinusoids(24, 32)
    assert table.shape == (1, 24, 32) and table.dtype is torch.float32
    for position, channel in ((0, 0), (5, 6), (23, 30)):
        angle = torch.tensor(position / 10_000 ** (channel / 32))
        assert torch.allclose(table[0, position, channel], angle.sin(), atol=1e-6)
        assert torch.allclose(table[0, position, channel + 1], angle.cos(), atol=1e-6)


def test_the_loss_is_that_of_the_noise_that_leads_to_the_target(base):
    """Written out from the variance-preserving formulas, with a source."""
    from training.trainee import window_loss

    windows = batch(source=True)
    sigmas = trainee(base).window_model.sigmas[windows.timesteps].double()
    x0 = windows.target + 0.1 * random(*windows.target.shape, seed=9)
    level = (1 / (1 + sigmas.square())).view(-1, 1, 1, 1, 1)
    noisy = level.sqrt() * windows.start + (1 - level).sqrt() * windows.noise
    wanted = (noisy - level.sqrt() * windows.target) / (1 - level).sqrt()
    predicted = (noisy - level.sqrt() * x0) / (1 - level).sqrt()
    losses = {
        "eps": (predicted - wanted).square().mean(),
        "eps_l1": (predicted - wanted).abs().mean(),
        "x0": (x0 - windows.target).double().square().mean(),
    }
    ratio = (level / (1 - level)).clamp(max=5)
    losses["min_snr"] = (ratio * (x0 - windows.target).double().square()).mean()
    for kind, expected in losses.items():
        found = window_loss(kind, x0, windows.target, sigmas.float())
        assert torch.allclose(found.double(), expected, rtol=1e-4), kind
    # Without a source, the wanted noise is the noise.
    start = level.sqrt() * windows.target + (1 - level).sqrt() * windows.noise
    plain = (start - level.sqrt() * windows.target) / (1 - level).sqrt()
    assert torch.allclose(plain, windows.noise.double(), atol=1e-6)


def test_half_precision_is_trained_in_full(base):
    """The UNet computes in bfloat16; weights and gradients stay float32."""
    rounded = tiny_base(dtype=torch.bfloat16)
    half, exact = trainee(rounded, dtype="bfloat16"), trainee(base)
    loss = half(batch())
    loss.backward()
    assert loss.dtype is torch.float32
    assert abs(loss.item() / exact(batch()).item() - 1) < 0.1
    for weight in half.motion.parameters():
        assert weight.dtype is weight.grad.dtype is torch.float32
        assert weight.grad.isfinite().all() and weight.grad.any()
