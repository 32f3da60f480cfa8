"""The feature bank in ComfyUI's UNet: the recorded traces, and streams of any shape."""

import comfy.ldm.modules.attention as host_attention
import comfy.sample
import pytest
import torch
from host_bank import COUNT, ROUNDING, banked, one_row_per_call
from host_stream import (
    SIZE,
    Stream,
    computing_in,
    core,
    frames,
    prompt,
    random,
    relative_error,
    translate,
)

ATTENTIONS = 16  # self-attentions of SD1.5


# The traces


@pytest.fixture(scope="module")
def bank_folder(golden_folder):
    return golden_folder.parent / "streamv2v"


@pytest.fixture(scope="module")
def plain(golden, bank_folder):
    """A small SD1.5 with the weights of StreamV2V's traces."""
    return golden[0].build_sd15(bank_folder / "unet.safetensors")


@pytest.fixture(scope="module")
def errors(golden, bank_folder, plain):
    """Run the first frames of a trace with changed settings: the worst error of each tensor."""
    module, engine = golden

    @torch.inference_mode()
    def run(name, count=10, **changes):
        trace, settings = module.read_trace(bank_folder / f"trace-{name}.safetensors")
        config = module.bank_config(engine, settings)
        changed = type(config)(**{**vars(config), **changes})
        cut = {key: trace[key][:count] for key in ("x", "eps", "eps_no_bank")}
        ours = module.run_streamv2v(engine, plain, trace | cut, changed)
        return {key: relative_error(ours[key], cut[key]) for key in ("eps", "eps_no_bank")}

    return run


@pytest.mark.parametrize("name", ["dyme", "queue"])
def test_trace(golden, errors, name):
    found = errors(name)
    assert found["eps"] <= golden[0].LIMIT
    assert found["eps_no_bank"] <= golden[0].LIMIT


@pytest.mark.parametrize(
    "changes",
    [
        {"similarity_threshold": 0.98},
        {"fusion_strength": 0.75},
        {"interval": 3},
        {"fuse": ("middle",)},
        {"fuse": ("up 2",)},
        {"fuse": ("middle", "up 2", "up 3")},
        {"extend": ()},
        {"extend": ("down 1", "down 2", "down 3", "middle", "up 2", "up 3")},
        {"queue_frames": 1},
    ],
    ids=str,
)
def test_trace_notices_every_setting(errors, changes):
    """Six frames: those after the second one that is taken in."""
    assert errors("queue", 6, **changes)["eps"] > 1e-3


# Streams


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("bank", [{}, {"kind": "queue", "queue_frames": 3}], ids=str)
def test_rows_only_share_a_batch(sd15, steps, bank):
    model = banked(sd15, **bank)
    found = translate(model, frames(COUNT), steps=steps)
    assert relative_error(found, one_row_per_call(model, frames(COUNT), steps=steps)) < ROUNDING
    plain = translate(sd15, frames(COUNT), steps=steps)
    assert relative_error(found[:1], plain[:1]) < ROUNDING, "the first frame has no bank"
    assert relative_error(found[1:], plain[1:]) > 1e-2


@pytest.mark.parametrize("kind", ["merge", "queue"])
@torch.inference_mode()
def test_chunks_and_saves_change_nothing(sd15, kind, tmp_path):
    """However it is cut, and loaded from a file at every cut: the same numbers, to the bit."""
    model, latents = banked(sd15, kind=kind), frames(COUNT)
    whole = translate(model, latents, steps=3)
    files = core("run.state_file")
    parts, state = [], None
    for start, stop in ((0, 1), (1, 3), (3, COUNT), (COUNT, COUNT)):
        with Stream(model, SIZE, COUNT, steps=3) as stream:
            if state is not None:
                stream.session.load_state_dict(state)
            parts += stream.session.push_all(latents[start:stop])
            files.save_state(tmp_path / "state", stream.session.state_dict(), {})
            state = files.load_state(tmp_path / "state", {})
            if start == COUNT:
                parts += stream.session.flush()
    assert torch.equal(torch.stack(parts), whole)


@pytest.mark.parametrize("size", [(12, 8), (9, 7), (4, 20), (5, 3)])
@pytest.mark.parametrize("kind", ["merge", "queue"])
def test_any_size_and_aspect(sd15, size, kind):
    model = banked(sd15, kind=kind)
    found = translate(model, frames(COUNT, size))
    assert found.shape == (COUNT, 4, *size)
    assert relative_error(found, translate(sd15, frames(COUNT, size))) > 1e-3


def test_merging_depends_on_the_seed(sd15):
    """Streams of other seeds differ by more than their noise where tokens are merged."""
    latents, orders = frames(COUNT), core("stream.noise").TokenPermutation
    streams = []
    for seed in (3, 4):
        with torch.inference_mode(), Stream(banked(sd15), SIZE, COUNT, seed=3) as stream:
            stream.session.memory["feature_bank"].orders.permutation = orders(seed)
            streams.append(stream.run(latents))
    assert torch.equal(streams[0], translate(banked(sd15), latents, seed=3))
    assert relative_error(*streams) > 1e-4


def test_every_level_can_be_chosen(sd15):
    """Each level, extended or fused alone, changes the stream in a way of its own."""
    levels = core("feature_bank.bank").ALL_LEVELS
    latents, clips = frames(3), [translate(sd15, frames(3))]
    for level in levels:
        clips.append(translate(banked(sd15, fuse=(), extend=(level,)), latents))
        clips.append(translate(banked(sd15, fuse=(level,), extend=()), latents))
    for index, clip in enumerate(clips):
        assert not any(torch.equal(clip, other) for other in clips[:index]), index


def test_levels_are_those_of_the_paper(sd15):
    """Fusion is in the middle block and in the lowest up level with attention."""
    found = core("feature_bank.patch").self_attentions(sd15.model.diffusion_model)
    assert len(found) == ATTENTIONS
    levels = [attention.level for attention in found]
    assert list(dict.fromkeys(levels)) == list(core("feature_bank.bank").ALL_LEVELS)
    assert [levels.count(level) for level in dict.fromkeys(levels)] == [2, 2, 2, 1, 3, 3, 3]
    sizes = {attention.level: attention.downsamplings for attention in found}
    assert sizes == {
        "down 1": 0,
        "down 2": 1,
        "down 3": 2,
        "middle": 3,
        "up 2": 2,
        "up 3": 1,
        "up 4": 0,
    }


# The host's attention


@pytest.fixture
def attended(monkeypatch):
    """(queries, keys) in tokens of every self-attention that the host's function runs."""
    original, calls = host_attention.optimized_attention, []

    def record(q, k, v, *args, **kwargs):
        if k.shape[1] != 77:
            calls.append((q.shape[1], k.shape[1]))
        return original(q, k, v, *args, **kwargs)

    monkeypatch.setattr(host_attention, "optimized_attention", record)
    return calls


@pytest.mark.parametrize("settings, most", [({}, 1), ({"kind": "queue", "queue_frames": 2}, 2)])
def test_the_hosts_attention_sees_the_bank(sd15, attended, settings, most):
    translate(banked(sd15, interval=1, **settings), frames(4), steps=1)
    assert len(attended) == 4 * ATTENTIONS
    for frame in range(4):
        calls = attended[frame * ATTENTIONS : (frame + 1) * ATTENTIONS]
        assert all(keys == queries * (1 + min(frame, most)) for queries, keys in calls)


def test_rows_with_banks_of_one_size_share_an_attention_call(sd15, attended):
    translate(banked(sd15, interval=100), frames(5), steps=2)
    # The first call has a row without bank; the second has one with and one without.
    assert sum(keys == queries for queries, keys in attended) == 2 * ATTENTIONS
    assert sum(keys == 2 * queries for queries, keys in attended) == 5 * ATTENTIONS


def test_an_override_of_the_hosts_attention_is_used(sd15):
    if not hasattr(host_attention, "wrap_attn"):
        pytest.skip("this ComfyUI has no optimized_attention_override")
    calls, model = [], banked(sd15)

    def override(attention, q, k, v, *args, **kwargs):
        calls.append(k.shape[1] // q.shape[1])
        return attention(q, k, v, *args, **kwargs)

    options = model.model_options.setdefault("transformer_options", {})
    options["optimized_attention_override"] = override
    found = translate(model, frames(3), steps=1)
    assert calls.count(2) == 2 * ATTENTIONS
    assert torch.equal(found, translate(banked(sd15), frames(3), steps=1))


# Memory


@pytest.mark.parametrize("steps, cfg", [(1, 1.0), (3, 2.0)])
@pytest.mark.parametrize("kind", ["merge", "queue"])
@torch.inference_mode()
def test_the_memory_estimate_is_twice_what_is_held(sd15, steps, cfg, kind):
    """A full bank takes half of it; while a frame is taken in, the old bank is there as well."""
    most, size = 0, (9, 7)
    with Stream(banked(sd15, kind=kind, interval=1), size, 6, steps=steps, cfg=cfg) as stream:
        host, session = stream.host, stream.session

        def note(x, plan):
            nonlocal most
            out = host(x, plan)
            most = max(most, session.nbytes)
            return out

        session.model = note
        session.push_all(frames(6, size))
        assert session.nbytes * 2 == host.memory_bytes == most
        held = session.nbytes
        session.push_all(frames(6, size, seed=1))
        assert session.nbytes == held


def test_levels_that_are_not_used_are_not_kept(sd15):
    applied = core("stream.memory")
    shape = applied.StreamShape(SIZE, 2, 4)

    def held(**settings):
        return applied.applied_memories(banked(sd15, **settings))["feature_bank"].nbytes(shape)

    assert held(fuse=(), extend=()) == 0
    assert held(fuse=()) < held() < held(kind="queue", queue_frames=2) == 2 * held()
    assert held(fuse=("middle",), extend=("up 4",)) == held(fuse=("middle",), extend=()) + held(
        fuse=(), extend=("up 4",)
    )


@pytest.mark.parametrize(
    "stored, computed, kept",
    [
        (torch.bfloat16, None, torch.bfloat16),
        (torch.float16, torch.float32, torch.float32),
        (torch.float8_e4m3fn, torch.bfloat16, torch.bfloat16),
    ],
    ids=str,
)
@torch.inference_mode()
def test_weights_of_other_types(golden, golden_folder, stored, computed, kept):
    """The bank and its estimate follow the type that the UNet computes in."""
    exact = golden[0].build_sd15(golden_folder / "unet.safetensors")
    plain = computing_in(exact, stored, computed)
    with Stream(banked(plain), SIZE, COUNT) as stream:
        found = stream.run(frames(COUNT))
        assert stream.session.nbytes * 2 == stream.host.memory_bytes
        state = stream.session.memory["feature_bank"].state_dict()
    assert {tensor.dtype for name, tensor in state.items() if "/" in name} == {kept}
    expected = translate(banked(exact), frames(COUNT))
    assert (found - expected).abs().mean() < 0.5 * expected.abs().mean()


# The MODEL


def anatomy(model):
    """What a bank could leave behind in a ModelPatcher and its UNet."""
    unet = model.model.diffusion_model
    options = model.model_options
    patches = options.get("transformer_options", {})
    return (
        [(name, id(module)) for name, module in unet.named_modules()],
        {name: id(tensor) for name, tensor in unet.state_dict(keep_vars=True).items()},
        sorted(options),
        repr(patches),
        dict(model.attachments),
    )


def test_the_input_model_is_left_as_it_was(sd15):
    before, plain = anatomy(sd15), translate(sd15, frames(3))
    model = banked(sd15)
    translate(model, frames(3))
    assert anatomy(sd15) == before
    assert torch.equal(translate(sd15, frames(3)), plain)
    again = banked(sd15)
    assert torch.equal(translate(model, frames(3)), translate(again, frames(3)))


def ksample(model):
    """Sample as core's KSampler node does."""
    noise, latent = random(1, 4, *SIZE), random(1, 4, *SIZE)
    return comfy.sample.sample(model, noise, 2, 1.0, "euler", "normal", prompt(), prompt(1), latent)


def test_a_stock_sampler_names_the_right_node(sd15):
    with pytest.raises(
        RuntimeError, match="comes from 'Apply Feature Bank'.*Sample it with 'Stream Sampler'"
    ):
        ksample(banked(sd15))
    assert ksample(sd15).isfinite().all()


def test_twice_is_refused(sd15):
    error = core("host.sd15").UnsupportedModelError
    with pytest.raises(error, match="already carries a feature bank.*'Apply Feature Bank'"):
        banked(banked(sd15))


@torch.inference_mode()
def test_two_streams_of_one_model_in_turn(sd15):
    model, clips = banked(sd15), (frames(COUNT, seed=2), frames(COUNT, seed=3))
    expected = [translate(model, clip, seed=seed) for seed, clip in enumerate(clips)]
    found = [[], []]
    with Stream(model, SIZE, COUNT, seed=0) as one, Stream(model, SIZE, COUNT, seed=1) as other:
        for index in range(COUNT):
            for which, stream in enumerate((one, other)):
                found[which] += stream.session.push(clips[which][index])
        for which, stream in enumerate((one, other)):
            found[which] += stream.session.drain()
    assert all(torch.equal(torch.stack(found[which]), expected[which]) for which in (0, 1))
