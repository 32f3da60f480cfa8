"""Every guidance mode with every memory: streamed, against one frame and one step at a time."""

import pytest
import torch
from host_stream import SIZE, Stream, core, frames, patched, prompt, relative_error, translate
from tiny_control import TinyControl, controlled, numbered

LIMIT = 1e-4
# At SIZE the deepest level has two pixels: its GroupNorms divide by differences that may be tiny,
# and rounding, which differs from processor to processor, comes out above the limit.
LARGER = (16, 20)
COUNT, STEPS, SCALE, DELTA = 5, 3, 1.6, 0.8
MODES = ["none", "full", "self", "initialize"]
MEMORIES = ["no memory", "motion module", "feature bank", "both"]
every_mode = pytest.mark.parametrize("mode", MODES)
every_memory = pytest.mark.parametrize("memory", MEMORIES)


@pytest.fixture
def with_memory(sd15, motion):
    """Put memories on the small model."""

    def apply(memory):
        model = sd15
        if memory in ("motion module", "both"):
            model = patched(model, motion, 4, 2)
        if memory in ("feature bank", "both"):
            config = core("feature_bank.bank").BankConfig(interval=2, similarity_threshold=0.5)
            model = core("feature_bank.patch").apply_feature_bank(model, config)
        return model

    return apply


def guided(mode):
    return {"guidance": mode, "cfg": SCALE, "delta": DELTA, "steps": STEPS}


class Prompt:
    """One prompt of a model, with a memory of its own: x0 of one group at one step."""

    def __init__(self, stream):
        self.stream, self.memory = stream, stream.session.memory

    def __call__(self, x, group, step):
        rows = [core("stream.call_plan").Row(frame, step) for frame in group]
        plan = core("stream.call_plan").plan_call(rows, x.device, None, self.memory, [group])
        x0 = self.stream.host(x, plan)
        if self.memory:
            self.memory.commit()
        return x0


@torch.inference_mode()
def written_out(model, latents, mode):
    """StreamDiffusion's recurrence in eps, one group after the other through all its steps.

    Both prompts are positive prompts of streams of their own, each at cfg 1: no code of guidance.
    """
    settings = {"size": LARGER, "count": len(latents), "steps": STEPS}
    with (
        Stream(model, positive=prompt(), **settings) as one,
        Stream(model, positive=prompt(1), **settings) as other,
    ):
        return torch.cat(
            [
                _group(one.schedule, one.noise, Prompt(one), Prompt(other), latents, group, mode)
                for group in _groups(one.session.memory, len(latents))
            ]
        )


def _groups(memory, count):
    frame = 0
    while frame < count:
        group = memory.group(frame) if memory else range(frame, frame + 1)
        yield range(frame, min(group[-1] + 1, count))
        frame = group[-1] + 1


def _group(levels, noise_of, positive, negative, latents, group, mode):
    def noise(step):
        return torch.stack([noise_of(frame, step, latents.shape[1:]) for frame in group])

    stock = noise(0)
    x = levels.sqrt_alpha[0] * latents[group] + levels.sqrt_beta[0] * stock
    for step in range(STEPS):
        alpha, beta = levels.sqrt_alpha[step], levels.sqrt_beta[step]
        c_skip, c_out = levels.c_skip[step], levels.c_out[step]
        eps = (x - alpha * positive(x, group, step)) / beta
        if mode == "full" or (mode == "initialize" and step == 0):
            stock = (x - alpha * negative(x, group, step)) / beta
        if mode != "none":
            away = stock if mode == "full" else DELTA * stock
            eps = away + SCALE * (eps - away)
        x0 = c_out * (x - beta * eps) / alpha + c_skip * x
        if step + 1 == STEPS:
            return x0
        left = c_out * (beta * stock - beta * eps) / alpha + c_skip * beta * stock
        alpha, beta = levels.sqrt_alpha[step + 1], levels.sqrt_beta[step + 1]
        stock = noise(step + 1) + alpha / beta * left
        x = alpha * x0 + beta * noise(step + 1)


@every_memory
@every_mode
@torch.inference_mode()
def test_streamed_is_written_out_and_fits_the_estimate(with_memory, memory, mode):
    model = with_memory(memory)
    latents = frames(COUNT, LARGER)
    with Stream(model, LARGER, COUNT, **guided(mode)) as stream:
        found = stream.run(latents)
        assert stream.session.nbytes <= stream.host.memory_bytes
        assert (stream.session.nbytes > 0) == (memory != "no memory")
    assert relative_error(found, written_out(model, latents, mode)) < LIMIT


def test_modes_differ(with_memory):
    model = with_memory("motion module")
    found = [translate(model, frames(3), **guided(mode)) for mode in MODES]
    found.append(translate(model, frames(3), **guided("self") | {"delta": 0.5}))
    pairs = [(a, b) for a in range(5) for b in range(a)]
    assert all(relative_error(found[a], found[b]) > 1e-2 for a, b in pairs)


@pytest.mark.parametrize("memory, scale", [("no memory", SCALE), ("both", SCALE), ("both", 1.0)])
@every_mode
@torch.inference_mode()
def test_unet_rows_per_frame(with_memory, sd15, memory, mode, scale):
    """In the steady state, as the help page says; at cfg 1 no mode costs anything."""
    rows = []

    def record(apply, call):
        rows.append(len(call["input"]))
        return apply(call["input"], call["timestep"], **call["c"])

    sd15.set_model_unet_function_wrapper(record)
    model = with_memory(memory)
    for steps in (1, 3):
        documented = {"none": steps, "full": 2 * steps, "self": steps, "initialize": steps + 1}
        with Stream(model, SIZE, 5, steps=steps, guidance=mode, cfg=scale) as stream:
            stream.session.push_all(frames(4))
            rows.clear()
            stream.session.push_all(frames(1))
        assert sum(rows) == (steps if scale == 1.0 else documented[mode])


@every_mode
def test_what_reads_the_negative(with_memory, mode):
    model = with_memory("motion module")
    one, other = (
        translate(model, frames(3), negative=prompt(seed), **guided(mode)) for seed in (1, 2)
    )
    assert torch.equal(one, other) == (mode in ("none", "self"))


@every_mode
@torch.inference_mode()
def test_memory_is_kept_for_the_passes_there_are(with_memory, mode):
    """`initialize` runs the negative at the first step only, so that is what it remembers."""
    kept = {"none": 0, "full": STEPS, "self": 0, "initialize": 1}[mode]
    model = with_memory("both")
    with Stream(model, SIZE, 4, **guided(mode)) as stream:
        stream.run(frames(4))
        caches = stream.session.memory["live2diff"].caches.state_dict()
        banks = stream.session.memory["feature_bank"].banks.state_dict()
    steps = {"positive": STEPS, "negative": kept}
    found = {(name.split(".")[0], len(cache)) for name, cache in caches.items()}
    assert found == {each for each in steps.items() if each[1]}
    for kind, count in steps.items():
        at = {int(name.split("/")[2]) for name in banks if name.startswith(kind)}
        assert at == set(range(count))


@torch.inference_mode()
def test_the_negative_pass_is_shown_the_pictures_of_its_frames(sd15):
    nets = TinyControl(), TinyControl()
    prompts = [controlled(numbered(0, 4), net, seed) for seed, net in enumerate(nets)]
    translate(sd15, frames(4), positive=prompts[0], negative=prompts[1], **guided("initialize"))
    assert nets[0].seen == [[1], [2, 1], [3, 2, 1], [4, 3, 2], [4, 3], [4]]
    assert nets[1].seen == [[1], [2], [3], [4]]


@pytest.mark.parametrize("mode", ["self", "initialize"])
@torch.inference_mode()
def test_a_stream_goes_on_with_its_residual_noise(with_memory, mode):
    model = with_memory("motion module")
    whole = translate(model, frames(COUNT), **guided(mode))
    with Stream(model, SIZE, COUNT, **guided(mode)) as stream:
        first = stream.session.push_all(frames(COUNT)[:4])
        state = {name: tensor.clone() for name, tensor in stream.session.state_dict().items()}
    with Stream(model, SIZE, COUNT, **guided(mode)) as stream:
        stream.session.load_state_dict(state)
        rest = stream.run(frames(COUNT)[4:])
    assert torch.equal(torch.cat([first, rest]), whole)
