"""Guidance, ControlNets, areas, masks and hooks, each against the whole clip at once."""

import itertools

import comfy.controlnet
import comfy.hooks
import comfy.model_patcher
import comfy.samplers
import pytest
import torch
from host_stream import (
    SIZE,
    Stream,
    core,
    frames,
    patched,
    prompt,
    random,
    relative_error,
    translate,
    translate_at_once,
)
from tiny_control import TinyControl, numbered

LIMIT = 1e-4
COUNT = 6


@pytest.fixture
def model(sd15, motion):
    """A window of 4 with 2 warm-up frames: six frames fill it and move on."""
    return patched(sd15, motion, 4, 2)


@pytest.fixture
def same_at_once(monkeypatch, model):
    """Stream a clip, compare it with the whole clip at once, and return it."""

    def run(latents=None, depth=None, **settings):
        latents = frames(COUNT) if latents is None else latents
        found = translate(model, latents, depth, **settings)
        expected = translate_at_once(monkeypatch, model, latents, depth, **settings)
        assert relative_error(found, expected) < LIMIT
        return found

    return run


# Guidance


def test_cfg_1_ignores_the_negative(model):
    clips = [translate(model, frames(3), negative=prompt(seed)) for seed in (1, 2)]
    assert torch.equal(*clips)


def test_cfg_of_the_same_prompt_is_no_guidance(model):
    guided = translate(model, frames(COUNT), negative=prompt(), cfg=4.0)
    assert relative_error(guided, translate(model, frames(COUNT))) < LIMIT


@pytest.mark.parametrize("steps", [1, 3])
def test_guidance_has_a_memory_for_each_prompt(same_at_once, model, steps):
    guided = same_at_once(cfg=2.0, steps=steps, depth=frames(COUNT, seed=1))
    alone = translate(model, frames(COUNT), frames(COUNT, seed=1), steps=steps)
    assert relative_error(guided, alone) > 1e-2


def test_prompts_of_two_lengths(same_at_once):
    same_at_once(cfg=2.0, negative=[[random(1, 154, 32), {}]])


def test_several_prompts_at_once(same_at_once):
    same_at_once(positive=[*prompt(), *prompt(5, strength=0.5)], cfg=2.0)


@torch.inference_mode()
def test_caches_are_named_by_prompt(model):
    with Stream(model, SIZE, 3, cfg=2.0, positive=[*prompt(), *prompt(5)]) as stream:
        stream.run(frames(3))
        state = stream.session.memory["live2diff"].caches.state_dict()
        names = {name.split("/")[0] for name in state}
    assert names == {"positive.0.pass0", "positive.1.pass0", "negative.0.pass0"}


@pytest.fixture
def batches(sd15):
    """Numbers of conditionings in each of the host's batches."""
    counts = []

    def record(apply, call):
        counts.append(len(call["cond_or_uncond"]))
        return apply(call["input"], call["timestep"], **call["c"])

    sd15.set_model_unet_function_wrapper(record)
    return counts


def test_prompts_one_by_one_are_prompts_together(sd15, motion, monkeypatch, batches):
    model = patched(sd15, motion, 4, 2)
    together = translate(model, frames(COUNT), cfg=2.0)
    assert set(batches) == {2}
    batches.clear()
    monkeypatch.setattr(
        core("host.whole_batches").WholeBatches, "memory_required", lambda *_, **__: 1e30
    )
    one_by_one = translate(model, frames(COUNT), cfg=2.0)
    assert set(batches) == {1}
    assert relative_error(one_by_one, together) < LIMIT


WITH_AREAS = {
    "negative": prompt(1, area=(4, 10, 0, 0), strength=1.0),
    "positive": [*prompt(), *prompt(5, area=(4, 10, 4, 0)), *prompt(6, area=(4, 10, 0, 0))],
}


@pytest.mark.parametrize("memory", [True, False], ids=["motion module", "no memory"])
@pytest.mark.parametrize("prompts", [{}, WITH_AREAS], ids=["plain", "areas"])
def test_frames_do_not_depend_on_free_memory(sd15, motion, monkeypatch, batches, prompts, memory):
    model = patched(sd15, motion, 4, 2) if memory else sd15
    found = []
    for free in (-1, 0, 1, 10**6, 10**15):
        with monkeypatch.context() as patch, torch.inference_mode():
            # Opened while there is memory, as after a run before.
            with Stream(model, SIZE, COUNT, cfg=7.0, **prompts) as stream:
                patch.setattr(
                    comfy.model_patcher.ModelPatcher, "get_free_memory", lambda *_, n=free: n
                )
                found.append((stream.run(frames(COUNT)), list(batches)))
        batches.clear()
    assert max(found[0][1]) > 1
    for clip, counts in found[1:]:
        assert torch.equal(clip, found[0][0])
        assert counts == found[0][1]


TWO = [*prompt(), *prompt(5)]
TOGETHER = {
    "one prompt": ({}, 1),
    "two prompts": ({"positive": TWO}, 2),
    "cfg": ({"cfg": 2.0}, 2),
    "cfg and two prompts": ({"cfg": 2.0, "positive": TWO}, 3),
    "self": ({"cfg": 2.0, "guidance": "self"}, 1),
    "initialize": ({"cfg": 2.0, "guidance": "initialize", "negative": TWO}, 2),
}


@pytest.mark.parametrize("settings, together", TOGETHER.values(), ids=TOGETHER)
@torch.inference_mode()
def test_there_is_room_for_the_whole_batch(sd15, motion, batches, settings, together):
    """The host keeps so many latents' room free, beside the bytes of the caches."""
    model, sizes = patched(sd15, motion, 4, 2), []

    def note(executor, model, shape, *args, **kwargs):
        sizes.append(shape[0])
        return executor(model, shape, *args, **kwargs)

    model.add_wrapper("prepare_sampling", note)
    with Stream(model, SIZE, COUNT, **settings) as stream:
        stream.run(frames(COUNT))
        caches = stream.host.memory_bytes / sd15.model.memory_required([1, 4, *SIZE])
    (memory,) = core("stream.memory").applied_memories(model).values()
    assert max(batches) == together
    assert 0 <= sizes[0] - (memory.largest_group * together + caches) < 1


# ControlNets


def control_net(images, time_range=(0.0, 1.0), strength=20.0):
    """A ControlNet of the host's own class."""
    control = comfy.controlnet.ControlNet(TinyControl(), load_device=torch.device("cpu"))
    control.set_cond_hint(images, strength, time_range)
    return control


def controlled(control, seed=0):
    return prompt(seed, control=control, control_apply_to_uncond=True)


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@torch.inference_mode()
def test_every_row_is_shown_its_own_frame(model, cfg):
    control = control_net(numbered(0, COUNT))
    asked = []
    with Stream(model, SIZE, COUNT, steps=3, positive=controlled(control), cfg=cfg) as stream:
        host = stream.host

        def note(x, plan):
            asked.append([row.frame + 1 for row in plan.rows] * (1 if cfg == 1 else 2))
            return host(x, plan)

        stream.session.model = note
        stream.run(frames(COUNT))
    assert control.control_model.seen == asked
    assert [6, 5, 4] == asked[-3][:3]


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("time_range", [(0.0, 1.0), (0.0, 0.6), (0.6, 1.0)])
def test_control_is_the_same_at_once(same_at_once, model, cfg, time_range):
    control = control_net(numbered(0, COUNT), time_range)
    found = same_at_once(positive=controlled(control), steps=3, cfg=cfg)
    assert relative_error(found, translate(model, frames(COUNT), steps=3, cfg=cfg)) > 1e-3


def test_chained_controls(same_at_once):
    first = control_net(numbered(0, COUNT))
    second = control_net(numbered(0, COUNT).flip(0)).set_previous_controlnet(first)
    same_at_once(positive=controlled(second))
    rows = zip(first.control_model.seen, second.control_model.seen, strict=True)
    assert all(a + b == COUNT + 1 for one, other in rows for a, b in zip(one, other, strict=True))


def test_one_image_for_all_frames(same_at_once, model):
    control = control_net(numbered(0, 1))
    same_at_once(positive=controlled(control))
    assert {value for call in control.control_model.seen for value in call} == {1}


def test_the_users_control_is_not_touched(model):
    control = control_net(numbered(0, COUNT))
    positive = controlled(control)
    before = dict(vars(control))
    translate(model, frames(COUNT), positive=positive, cfg=2.0)
    assert positive[0][1]["control"] is control
    after = vars(control)
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert torch.equal(control.cond_hint_original, numbered(0, COUNT))


@pytest.mark.parametrize("count", [2, COUNT - 1, COUNT + 1])
def test_other_counts_of_images_are_refused(model, count):
    error = core("host.control_hints").ControlHintError
    with pytest.raises(
        error, match=f"got {count} images for {COUNT} frames.*exactly one per frame"
    ):
        translate(model, frames(COUNT), positive=controlled(control_net(numbered(0, count))))


# Conditionings for a part of the steps, of the picture, or of the frames


@pytest.mark.parametrize("span", [(0.0, 0.6), (0.6, 1.0)])
def test_prompt_for_a_part_of_the_steps(same_at_once, span):
    part = prompt(5, start_percent=span[0], end_percent=span[1])
    same_at_once(positive=[*prompt(), *part], steps=3)


def test_prompt_of_a_step_range_alone(same_at_once, model):
    found = same_at_once(
        positive=[*prompt(0, end_percent=0.6), *prompt(5, start_percent=0.6)], steps=3, cfg=2.0
    )
    assert relative_error(found, translate(model, frames(COUNT), steps=3, cfg=2.0)) > 1e-2


def test_a_conditioning_is_active_where_the_host_would_have_it(sd15):
    """Decided by plain numbers; the host compares on the device, and waits for the result."""
    sampling, x = sd15.get_model_object("model_sampling"), torch.zeros(1, 4, 8, 8)
    levels = core("host.sd15").host_schedule(sd15, 8, 1.0).sigmas
    # Also bounds that are just the noise levels of the steps.
    bounds = [sampling.percent_to_sigma(percent / 10) for percent in range(11)]
    bounds += [sampling.sigma(sampling.timestep(torch.tensor(level))).item() for level in levels]
    found, expected = [], []
    for start, end in itertools.product([*bounds, None], repeat=2):
        cond = {"model_conds": {}, "uuid": 0, "timestep_start": start, "timestep_end": end}
        cond = {name: value for name, value in cond.items() if value is not None}
        for level in levels:
            active = core("host.frame_conditions").within_steps([cond], level)
            found.append(len(active))
            assert all("timestep" not in name for kept in active for name in kept)
            hosts = comfy.samplers.get_area_and_mult(cond, x, torch.tensor([level]))
            expected.append(int(hosts is not None))
    assert found == expected and len(set(found)) == 2


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize(
    "area", [(9, 10, 0, 2), (8, 10, 8, 2), ("percentage", 0.5, 1.0, 0.5, 0.0)], ids=str
)
def test_area_with_depth(same_at_once, cfg, area):
    size = (16, 12)
    same_at_once(
        frames(COUNT, size),
        frames(COUNT, size, seed=1),
        positive=[*prompt(), *prompt(5, area=area, strength=1.0)],
        cfg=cfg,
    )


@torch.inference_mode()
def test_an_area_alone_is_a_stream_of_that_part(model):
    """Same frames, depth and noise, cut out: the area must see the depth of its own place."""
    top, left, height, width = 6, 2, 9, 10
    latents, depth = frames(COUNT, (16, 12)), frames(COUNT, (16, 12), seed=1)

    def cut(whole):
        return whole[..., top : top + height, left : left + width]

    found = translate(model, latents, depth, positive=prompt(0, area=(height, width, top, left)))
    with Stream(model, (height, width), COUNT, depth=True) as stream:
        stream.session.pipeline.noise = core("stream.pipeline").noise_ahead(
            lambda f, s, _: cut(stream.noise(f, s, (4, 16, 12)))
        )
        # The depth encoder sees across the edges of the cut.
        features = iter(cut(stream.host.encode_depth(depth)))
        stream.host.encode_depth = lambda _: next(features).unsqueeze(0)
        expected = stream.run(cut(latents), cut(depth))
    assert relative_error(cut(found), expected) < LIMIT


@torch.inference_mode()
def test_memory_estimate_is_not_short_with_areas(model):
    positive = [*prompt(), *prompt(5, area=(4, 5, 0, 0), strength=1.0)]
    with Stream(model, SIZE, 3, positive=positive, cfg=2.0) as stream:
        stream.run(frames(3))
        assert stream.session.nbytes <= stream.host.memory_bytes


@pytest.mark.parametrize("bounds", [False, True])
def test_mask(same_at_once, bounds):
    mask = torch.zeros(1, 128, 160)
    mask[:, :, 32:] = 1.0
    same_at_once(
        frames(COUNT, (16, 20)),
        positive=[*prompt(), *prompt(5, mask=mask, mask_strength=0.7, set_area_to_bounds=bounds)],
    )


def test_mask_per_frame(same_at_once, model):
    masks = (random(COUNT, *SIZE, seed=9) > 0).float()
    positive = [*prompt(), *prompt(5, mask=masks, set_area_to_bounds=False)]
    found = same_at_once(positive=positive, cfg=2.0)
    positive[1][1]["mask"] = masks[:1]
    assert relative_error(translate(model, frames(COUNT), positive=positive, cfg=2.0), found) > 1e-2


def test_prompt_per_frame(same_at_once, model):
    found = same_at_once(positive=[[random(COUNT, 77, 32, seed=8), {}]], cfg=2.0)
    first = translate(
        model, frames(COUNT), positive=[[random(COUNT, 77, 32, seed=8)[:1], {}]], cfg=2.0
    )
    assert relative_error(first, found) > 1e-2


def test_other_counts_of_masks_and_prompts_are_refused(model):
    error = core("host.frame_conditions").FrameConditionError
    with pytest.raises(error, match=f"has 2 masks for {COUNT} frames"):
        translate(model, frames(COUNT), positive=prompt(0, mask=torch.ones(2, *SIZE)))
    with pytest.raises(error, match=f"has 3 prompts for {COUNT} frames.*exactly one per frame"):
        translate(model, frames(COUNT), negative=[[random(3, 77, 32), {}]], cfg=2.0)


# Hooks


KEY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


def lora_hook():
    width = 32
    lora = {
        KEY.replace(".weight", ".lora_up.weight"): random(width, 4, seed=1),
        KEY.replace(".weight", ".lora_down.weight"): random(4, width, seed=2),
    }
    return comfy.hooks.create_hook_lora(lora, 1.0, 1.0)


def test_lora_hooked_on_one_prompt(same_at_once, model):
    weight = dict(model.model.named_parameters())[KEY].clone()
    hooked = comfy.hooks.set_hooks_for_conditioning(prompt(), lora_hook())
    found = same_at_once(positive=hooked, cfg=2.0)
    assert relative_error(translate(model, frames(COUNT), cfg=2.0), found) > 1e-3
    model.detach()
    assert torch.equal(dict(model.model.named_parameters())[KEY], weight)


def test_hooks_with_keyframes_are_refused(model):
    hooks, keyframes = lora_hook(), comfy.hooks.HookKeyframeGroup()
    for start, strength in ((0.0, 1.0), (0.5, 0.0)):
        keyframes.add(comfy.hooks.HookKeyframe(strength, start_percent=start))
    hooks.set_keyframes_on_hooks(keyframes)
    hooked = comfy.hooks.set_hooks_for_conditioning(prompt(), hooks)
    error = core("live2diff.patch").UnsupportedModelError
    with pytest.raises(error, match="Remove the hook keyframes"):
        translate(model, frames(2), positive=hooked)


def perturbed(model):
    """Core's Perturbed-Attention Guidance runs each prompt again, with other self-attention."""
    import comfy_extras.nodes_pag

    node = comfy_extras.nodes_pag.PerturbedAttentionGuidance
    if hasattr(node, "execute"):
        return node.execute(model, 1.0).args[0]
    return node().patch(model, 1.0)[0]


@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_a_guidance_pass_has_a_memory_of_its_own(monkeypatch, model, cfg):
    guided = perturbed(model)
    found = translate(guided, frames(COUNT), cfg=cfg)
    expected = translate_at_once(monkeypatch, guided, frames(COUNT), cfg=cfg)
    assert relative_error(found, expected) < LIMIT
    assert relative_error(found, translate(model, frames(COUNT), cfg=cfg)) > 1e-3


def test_nodes_that_shrink_some_steps_are_refused(model):
    import comfy_extras.nodes_model_downscale

    node = comfy_extras.nodes_model_downscale.PatchModelAddDownscale
    settings = (3, 2.0, 0.0, 0.6, True, "bicubic", "bicubic")
    if hasattr(node, "execute"):
        shrunk = node.execute(model, *settings).args[0]
    else:
        shrunk = node().patch(model, *settings)[0]
    error = core("stream.call_plan").FeatureSizeError
    with pytest.raises(error, match="within a stream.*PatchModelAddDownscale.*remove it"):
        translate(shrunk, frames(COUNT), steps=3)
