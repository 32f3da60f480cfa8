"""Nothing of a stream stays in ComfyUI's model, and nothing of the model's other users leaks in."""

import gc
import weakref

import comfy.model_management
import comfy.model_sampling
import comfy.sample
import comfy.sd
import pytest
import torch
from host_stream import (
    SIZE,
    Stream,
    core,
    frames,
    node,
    patched,
    prompt,
    random,
    relative_error,
    translate,
)

COUNT = 6
# A transformer's layer, one behind an insertion point, and one of a block without transformer.
LORA_KEYS = (
    "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
    "diffusion_model.output_blocks.5.2.conv.weight",
    "diffusion_model.output_blocks.2.1.conv.weight",
)


def lora_patched(model, scale=0.1):
    """Patch weights as LoRA loaders do, on a clone."""
    clone = model.clone()
    weights = dict(model.model.named_parameters())
    patches = {
        key: ("diff", (random(*weights[key].shape, seed=index) * scale,))
        for index, key in enumerate(LORA_KEYS)
    }
    assert set(clone.add_patches(patches)) == set(LORA_KEYS)
    return clone


def anatomy(model):
    """Every module and every weight of a model, by name."""
    unet = model.model.diffusion_model
    modules = [(name, type(module), id(module)) for name, module in unet.named_modules()]
    return modules, {name: tensor.clone() for name, tensor in unet.state_dict().items()}


def assert_same_anatomy(model, before):
    modules, weights = anatomy(model)
    assert modules == before[0]
    assert weights.keys() == before[1].keys()
    assert all(torch.equal(weights[name], before[1][name]) for name in weights)


def ksample(model):
    """Sample as core's KSampler node does."""
    return comfy.sample.sample(
        model,
        random(1, 4, *SIZE),
        2,
        1.0,
        "euler",
        "normal",
        prompt(),
        prompt(1),
        random(1, 4, *SIZE),
    )


# The UNet


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_the_unet_is_left_as_it_was(sd15, motion, cfg):
    before = anatomy(sd15)
    translate(patched(sd15, motion, 4, 2), frames(COUNT), frames(COUNT, seed=1), cfg=cfg)
    assert_same_anatomy(sd15, before)


@pytest.mark.parametrize("call", [1, 30, 100])
def test_the_unet_is_left_as_it_was_after_an_error(monkeypatch, sd15, motion, call):
    """The forward pass fails in the middle: at the n-th temporal attention."""
    before = anatomy(sd15)
    attention = core("live2diff.motion_module").TemporalAttention
    original, calls = attention.forward, []

    def fail(self, *args):
        calls.append(self)
        if len(calls) == call:
            raise RuntimeError("out of luck")
        return original(self, *args)

    model = patched(sd15, motion, 4, 2)
    with monkeypatch.context() as patch:
        patch.setattr(attention, "forward", fail)
        with pytest.raises(RuntimeError, match="out of luck"):
            translate(model, frames(COUNT))
    assert_same_anatomy(sd15, before)
    assert torch.equal(
        translate(model, frames(3)), translate(patched(sd15, motion, 4, 2), frames(3))
    )


def test_a_plain_model_samples_as_before(sd15, motion):
    before = ksample(sd15)
    model = patched(sd15, motion)
    translate(model, frames(COUNT))
    assert torch.equal(ksample(sd15), before)
    del model
    gc.collect()
    assert torch.equal(ksample(sd15), before)


def test_a_stock_sampler_names_the_right_node(sd15, motion):
    before = anatomy(sd15)
    with pytest.raises(
        RuntimeError, match="comes from 'Apply Live2Diff'.*Sample it with 'Stream Sampler'"
    ):
        ksample(patched(sd15, motion))
    assert_same_anatomy(sd15, before)


# LoRAs and clones


def test_lora_before_or_after(sd15, motion):
    latents = frames(COUNT)
    plain = translate(patched(sd15, motion, 4, 2), latents)
    before = translate(patched(lora_patched(sd15), motion, 4, 2), latents)
    after = translate(lora_patched(patched(sd15, motion, 4, 2)), latents)
    assert torch.equal(before, after)
    assert relative_error(before, plain) > 1e-2
    assert torch.equal(translate(patched(sd15, motion, 4, 2), latents), plain)


@pytest.mark.parametrize("key", LORA_KEYS)
def test_every_lora_layer_counts(sd15, motion, key, monkeypatch):
    monkeypatch.setattr(f"{__name__}.LORA_KEYS", (key,), raising=False)
    latents = frames(2)
    plain = translate(patched(sd15, motion, 4, 2), latents)
    found = translate(lora_patched(patched(sd15, motion, 4, 2), 1.0), latents)
    assert relative_error(found, plain) > 1e-3


def test_lora_file_format(sd15, motion):
    """Through core's loader, with the names that LoRA files use."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    lora = {f"{name}.lora_up.weight": random(32, 4), f"{name}.lora_down.weight": random(4, 32)}
    first, _ = comfy.sd.load_lora_for_models(sd15, None, lora, 1.0, 0)
    last, _ = comfy.sd.load_lora_for_models(patched(sd15, motion, 4, 2), None, lora, 1.0, 0)
    clips = [translate(model, frames(3)) for model in (patched(first, motion, 4, 2), last)]
    assert torch.equal(*clips)
    assert relative_error(clips[0], translate(patched(sd15, motion, 4, 2), frames(3))) > 1e-3


@torch.inference_mode()
def test_clones_come_and_go_while_a_stream_runs(sd15, motion):
    latents = frames(COUNT)
    expected = translate(patched(sd15, motion, 4, 2), latents)
    model = patched(sd15, motion, 4, 2)
    others = [sd15.clone(), model.clone(), patched(sd15.clone(), motion, 5, 3), model.clone()]
    found = []
    with Stream(model.clone(), SIZE, COUNT) as stream:
        del model
        for latent in latents:
            found += stream.session.push(latent)
            if others:
                others.pop()
            gc.collect()
        found += stream.session.flush()
    assert torch.equal(torch.stack(found), expected)


def test_clones_are_all_alike(sd15, motion):
    model = patched(sd15, motion, 4, 2)
    clones = [model.clone(), model.clone().clone()]
    expected = translate(model, frames(3))
    del model
    gc.collect()
    for clone in clones:
        assert torch.equal(translate(clone, frames(3)), expected)


# Streams in turn


@torch.inference_mode()
def test_two_streams_of_one_model_in_turn(sd15, motion):
    clips = frames(COUNT, seed=2), frames(COUNT, seed=3)
    model = patched(sd15, motion, 4, 2)
    expected = [
        translate(model, clip, seed=seed, positive=prompt(seed)) for seed, clip in enumerate(clips)
    ]
    found = [[], []]
    with (
        Stream(model, SIZE, COUNT, seed=0, positive=prompt(0)) as one,
        Stream(model, SIZE, COUNT, seed=1, positive=prompt(1)) as other,
    ):
        for index in range(COUNT):
            for which, stream in enumerate((one, other)):
                found[which].append(stream.session.push_all(clips[which][index : index + 1]))
        for which, stream in enumerate((one, other)):
            found[which].append(stream.session.flush())
    for which in (0, 1):
        assert torch.equal(torch.cat(found[which]), expected[which])


@torch.inference_mode()
def test_streams_stopped_and_resumed_around_each_other(sd15, motion):
    """Two models with other LoRAs and windows share one UNet; each run opens it anew."""
    clips = frames(COUNT, seed=2), frames(COUNT, seed=3)
    models = patched(sd15, motion, 4, 2), lora_patched(patched(sd15, motion, 5, 3))
    expected = [translate(model, clip) for model, clip in zip(models, clips, strict=True)]
    sessions, found = [], [[], []]
    for start in (0, 2, 4):
        for which, (model, clip) in enumerate(zip(models, clips, strict=True)):
            with Stream(model, SIZE, COUNT) as stream:
                if start == 0:
                    sessions.append(stream.session)
                session = sessions[which]
                session.model = stream.host
                found[which].append(session.push_all(clip[start : start + 2]))
                if start == 4:
                    found[which].append(session.flush())
        ksample(sd15)
    for which in (0, 1):
        assert torch.equal(torch.cat(found[which]), expected[which])


# Memory


@pytest.fixture
def memories(monkeypatch):
    """Weak references to every memory and every cache tensor made in a test."""
    made = []
    memory, cache = core("live2diff.memory").MotionMemory, core("live2diff.kv_cache").KVCache
    memory_init, cache_init = memory.__init__, cache.__init__

    def note_memory(self, *args):
        made.append(weakref.ref(self))
        memory_init(self, *args)

    def note_cache(self, *args):
        cache_init(self, *args)
        made.extend(weakref.ref(tensor) for tensor in (self.keys, self.values))

    monkeypatch.setattr(memory, "__init__", note_memory)
    monkeypatch.setattr(cache, "__init__", note_cache)
    return made


def alive(memories):
    assert len(memories) > 80
    return [reference() for reference in memories if reference() is not None]


@torch.inference_mode()
def run_node(model, cfg=1.0):
    return node("sampler", "Live2DiffStreamSampler").execute(
        model=model,
        positive=prompt(),
        negative=prompt(1),
        frames={"samples": frames(COUNT)},
        seed=1,
        steps=4,
        denoise=0.5,
        cfg=cfg,
    )


def test_memory_is_freed_after_a_run(sd15, motion, memories):
    model = patched(sd15, motion, 4, 2)
    output = run_node(model, cfg=2.0)
    assert not alive(memories), "freed at once, without waiting for the garbage collector"
    del output


@pytest.mark.parametrize("call", [1, 30, 200])
def test_memory_is_freed_after_an_error(monkeypatch, sd15, motion, memories, call):
    attention = core("live2diff.motion_module").TemporalAttention
    original, calls = attention.forward, []

    def fail(self, *args):
        calls.append(1)
        if len(calls) == call + 40:
            raise RuntimeError("out of luck")
        return original(self, *args)

    monkeypatch.setattr(attention, "forward", fail)
    try:
        run_node(patched(sd15, motion, 4, 2))
    except RuntimeError as error:
        assert "out of luck" in str(error)
    else:
        pytest.fail("did not fail")
    gc.collect()
    assert not alive(memories)


def test_interrupt_stops_at_the_next_step_and_frees_all(monkeypatch, sd15, motion, memories):
    before = anatomy(sd15)
    host_model = core("host.model").HostModel
    original, calls = host_model.__call__, []

    def press_cancel(self, *args):
        calls.append(1)
        if len(calls) == 4:
            comfy.model_management.interrupt_current_processing()
        return original(self, *args)

    monkeypatch.setattr(host_model, "__call__", press_cancel)
    model = patched(sd15, motion, 4, 2)
    try:
        run_node(model)
    except comfy.model_management.InterruptProcessingException:
        pass
    else:
        pytest.fail("was not interrupted")
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert len(calls) == 4
    gc.collect()
    assert not alive(memories)
    assert_same_anatomy(sd15, before)


@pytest.mark.parametrize("call", [1, 60, 200, 330])
@torch.inference_mode()
def test_an_interrupted_frame_can_be_pushed_again(monkeypatch, sd15, motion, call):
    """Half of a call's caches are written when it stops; the next try writes them all."""
    model = patched(sd15, motion, 4, 2)
    latents = frames(COUNT)
    expected = translate(model, latents, steps=3, cfg=2.0)
    attention = core("live2diff.motion_module").TemporalAttention
    original, calls = attention.forward, []

    def stop(self, *args):
        calls.append(1)
        if len(calls) == call:
            raise comfy.model_management.InterruptProcessingException
        return original(self, *args)

    monkeypatch.setattr(attention, "forward", stop)
    found = []
    with Stream(model, SIZE, COUNT, steps=3, cfg=2.0) as stream:
        while len(found) < COUNT:
            try:
                for latent in latents[stream.session.frames_in :]:
                    found += stream.session.push(latent)
                found += stream.session.drain()
            except comfy.model_management.InterruptProcessingException:
                assert len(calls) == call
    assert torch.equal(torch.stack(found), expected)


def test_motion_weights_are_the_hosts_to_manage(sd15, motion):
    model = patched(sd15, motion)
    assert motion.patcher in model.get_nested_additional_models()
    translate(model, frames(2))
    loaded = [entry.model for entry in comfy.model_management.current_loaded_models]
    assert any(entry.model is motion.model for entry in loaded if entry is not None)
    comfy.model_management.unload_all_models()


# Opening and closing


def test_an_error_while_opening_is_not_hidden(monkeypatch, sd15, motion):
    """Closing a half-open model must not put an error of its own in front."""
    import comfy.samplers

    def fail(*_, **__):
        raise RuntimeError("the real reason")

    model = patched(sd15, motion)
    with monkeypatch.context() as patch:
        patch.setattr(comfy.samplers, "process_conds", fail)
        with pytest.raises(RuntimeError, match="the real reason"):
            translate(model, frames(2))
    assert len(translate(model, frames(2))) == 2


# What can be patched


def test_twice_is_refused(sd15, motion):
    error = core("live2diff.patch").UnsupportedModelError
    with pytest.raises(error, match="already carries a Live2Diff motion module"):
        patched(patched(sd15, motion), motion)


def test_sampling_replaced_later_is_refused(sd15, motion):
    model = patched(sd15, motion)
    model.add_object_patch("model_sampling", sd15.model.model_sampling)
    error = core("live2diff.patch").UnsupportedModelError
    with pytest.raises(error, match="was replaced by a later node.*put it before"):
        translate(model, frames(2))


def test_lcm_sampling_is_refused(sd15):
    """ModelSamplingDiscrete with 'lcm' scales x0, which the stream does itself."""
    import comfy_extras.nodes_model_advanced as advanced

    model = sd15.clone()
    kind = type("Sampling", (comfy.model_sampling.ModelSamplingDiscrete, advanced.LCM), {})
    model.add_object_patch("model_sampling", kind(sd15.model.model_config))
    error = core("live2diff.patch").UnsupportedModelError
    with pytest.raises(error, match="apply the LCM scalings themselves"):
        translate(model, frames(2))


def test_v_prediction_set_before_is_kept(sd15, motion):
    """A v-prediction merge says so through ModelSamplingDiscrete, before Apply Live2Diff."""
    parents = (comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION)
    model = sd15.clone()
    model.add_object_patch("model_sampling", type("V", parents, {})(sd15.model.model_config))
    sampling = patched(model, motion).get_model_object("model_sampling")
    assert isinstance(sampling, comfy.model_sampling.V_PREDICTION)
    eps = patched(sd15, motion).get_model_object("model_sampling")
    assert not isinstance(eps, comfy.model_sampling.V_PREDICTION)
    assert torch.equal(sampling.sigmas, eps.sigmas)
