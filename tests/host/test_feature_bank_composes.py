"""The feature bank with LoRAs, guidance, ControlNets, motion modules and other nodes' patches."""

import importlib

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_patcher
import comfy.ops
import comfy.sd
import pytest
import torch
from host_bank import COUNT, ROUNDING, banked, differ, one_row_per_call
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
)


def core_node(module, name, *args):
    """Run one of core's model nodes, old or new style, and return its MODEL."""
    cls = getattr(importlib.import_module(f"comfy_extras.{module}"), name)
    if hasattr(cls, "execute"):
        result = cls.execute(*args)
        return result.args[0] if hasattr(result, "args") else result[0]
    return cls().patch(*args)[0]


# Guidance


def test_cfg_of_the_same_prompt_is_no_guidance(sd15):
    guided = translate(banked(sd15), frames(COUNT), negative=prompt(), cfg=4.0)
    assert relative_error(guided, translate(banked(sd15), frames(COUNT))) < ROUNDING


@pytest.mark.parametrize("guidance", ["full", "initialize"])
@torch.inference_mode()
def test_every_conditioning_has_a_bank_of_its_own(sd15, guidance):
    """One step: the guided prediction is made of those of two streams, one for each prompt."""
    model, settings = banked(sd15), {"steps": 1, "guidance": guidance}
    with Stream(model, SIZE, COUNT, cfg=2.0, **settings) as stream:
        found = stream.run(frames(COUNT))
        names = stream.session.memory["feature_bank"].state_dict()
    positive, negative = (
        translate(model, frames(COUNT), steps=1, positive=prompt(seed)) for seed in (0, 1)
    )
    assert {name.split("/")[0] for name in names if "/" in name} == {
        "positive.0.pass0",
        "negative.0.pass0",
    }
    if guidance == "full":
        assert relative_error(found, 2 * positive - negative) < ROUNDING
    assert differ(found, positive, negative)


def test_prompts_one_by_one_are_prompts_together(sd15, monkeypatch):
    model, two = banked(sd15), [*prompt(), *prompt(5, strength=0.5)]
    with torch.inference_mode(), Stream(model, SIZE, COUNT, positive=two, cfg=2.0) as stream:
        together = stream.run(frames(COUNT))
    whole = core("host.whole_batches").WholeBatches
    monkeypatch.setattr(whole, "memory_required", lambda *_, **__: 1e30)
    with torch.inference_mode(), Stream(model, SIZE, COUNT, positive=two, cfg=2.0) as stream:
        one_by_one = stream.run(frames(COUNT))
    assert relative_error(one_by_one, together) < ROUNDING


def test_a_prompt_for_a_part_of_the_picture(sd15):
    """Its bank holds the tokens of its part."""
    positive = [*prompt(), *prompt(5, area=(9, 10, 0, 2))]
    model, size = banked(sd15), (16, 12)
    found = translate(model, frames(COUNT, size), positive=positive)
    expected = one_row_per_call(model, frames(COUNT, size), size, positive=positive)
    assert relative_error(found, expected) < ROUNDING
    assert differ(found, translate(model, frames(COUNT, size)))


# LoRAs


def test_lora_before_or_after(sd15):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_k"
    lora = {f"{name}.lora_up.weight": random(32, 4), f"{name}.lora_down.weight": random(4, 32)}

    def with_lora(model):
        return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)[0]

    plain = translate(banked(sd15), frames(COUNT))
    before = translate(banked(with_lora(sd15)), frames(COUNT))
    after = translate(with_lora(banked(sd15)), frames(COUNT))
    assert torch.equal(before, after)
    assert differ(before, plain)
    assert torch.equal(translate(banked(sd15), frames(COUNT)), plain)


# ControlNets


def small_controlnet():
    """A ControlNet of the host's own class and the SD1.5 layout, with attention of its own."""
    torch.manual_seed(0)
    net = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=4,
        model_channels=32,
        hint_channels=3,
        num_res_blocks=[2, 2, 2, 2],
        channel_mult=(1, 1, 2, 2),
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_middle=1,
        num_heads=8,
        use_spatial_transformer=True,
        context_dim=32,
        legacy=False,
        operations=comfy.ops.manual_cast,
    )
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


def test_controlnet(sd15):
    """Its own self-attention has no bank; each row is shown its own frame's image."""
    control = comfy.controlnet.ControlNet(small_controlnet(), load_device=torch.device("cpu"))
    control.set_cond_hint(random(COUNT, 3, 64, 80).abs(), 5.0, (0.0, 1.0))
    positive = prompt(0, control=control, control_apply_to_uncond=True)
    model = banked(sd15)
    found = translate(model, frames(COUNT), positive=positive, steps=3, cfg=2.0)
    expected = one_row_per_call(model, frames(COUNT), positive=positive, steps=3, cfg=2.0)
    assert relative_error(found, expected) < ROUNDING
    assert differ(
        found,
        translate(model, frames(COUNT), steps=3, cfg=2.0),
        translate(sd15, frames(COUNT), positive=positive, steps=3, cfg=2.0),
    )


# Apply Live2Diff


@pytest.mark.parametrize("mode", ["causal_warmup", "bidirectional"])
def test_live2diff_before_or_after(sd15, motion, mode):
    settings = {"depth": frames(COUNT, seed=1), "steps": 3, "cfg": 2.0}
    latents = frames(COUNT)
    before = banked(patched(sd15, motion, 3, 2, mode))
    after = patched(banked(sd15), motion, 3, 2, mode)
    clips = [translate(model, latents, **settings) for model in (before, after)]
    assert relative_error(*clips) < 1e-6
    motion_alone = translate(patched(sd15, motion, 3, 2, mode), latents, **settings)
    bank_alone = translate(banked(sd15), latents, steps=3, cfg=2.0)
    assert differ(clips[0], motion_alone, bank_alone)


@torch.inference_mode()
def test_both_memories_are_saved_and_loaded_together(sd15, motion):
    model, latents = banked(patched(sd15, motion, 3, 2)), frames(COUNT)
    whole = translate(model, latents)
    with Stream(model, SIZE, COUNT) as stream:
        first = stream.session.push_all(latents[:3])
        state = stream.session.state_dict()
    with Stream(model, SIZE, COUNT) as stream:
        stream.session.load_state_dict(state)
        rest = stream.run(latents[3:])
    assert torch.equal(torch.cat([first, rest]), whole)
    with Stream(banked(sd15), SIZE, COUNT) as stream:
        with pytest.raises(ValueError, match="remembers by feature_bank and live2diff, this MODEL"):
            stream.session.load_state_dict(state)


@pytest.mark.parametrize("call", [3, 40, 90, 130])
@torch.inference_mode()
def test_an_interrupted_frame_can_be_pushed_again(monkeypatch, sd15, motion, call):
    """Half of a call's banks have taken the frame in when it stops; so in a warm-up's 2nd step."""
    model, latents = banked(patched(sd15, motion, 3, 2), interval=1), frames(COUNT)
    expected = translate(model, latents, steps=3)
    step = core("feature_bank.memory").BankCall
    original, calls = step.update, []

    def stop(self, *args):
        calls.append(1)
        rows = original(self, *args)
        if len(calls) == call:
            raise RuntimeError("out of luck")
        return rows

    monkeypatch.setattr(step, "update", stop)
    found = []
    with Stream(model, SIZE, COUNT, steps=3) as stream:
        while len(found) < COUNT:
            try:
                for latent in latents[stream.session.frames_in :]:
                    found += stream.session.push(latent)
                found += stream.session.drain()
            except RuntimeError:
                assert len(calls) == call
    assert torch.equal(torch.stack(found), expected)


# Other nodes' patches


@torch.inference_mode()
def test_a_guidance_pass_has_a_bank_of_its_own(sd15):
    """PAG runs the prompt again with another middle block: it is a stream of that model."""
    guided = core_node("nodes_pag", "PerturbedAttentionGuidance", banked(sd15), 1.0)
    levels = tuple(level for level in core("feature_bank.bank").ALL_LEVELS if level != "middle")
    perturbed = banked(sd15, fuse=("up 2",), extend=levels)
    perturbed.set_model_attn1_replace(lambda q, k, v, options: v, "middle", 0)
    with Stream(guided, SIZE, COUNT, steps=1) as stream:
        found = stream.run(frames(COUNT))
        names = stream.session.memory["feature_bank"].state_dict()
    layers = {
        number: {name.split("/")[1] for name in names if name.startswith(f"positive.0.{number}")}
        for number in ("pass0", "pass1")
    }
    assert layers["pass0"] - layers["pass1"] == {"middle.0.0"} and layers["pass1"]
    own, other = (translate(model, frames(COUNT), steps=1) for model in (banked(sd15), perturbed))
    assert differ(own, other)
    assert relative_error(found, 2 * own - other) < ROUNDING


def test_freeu_before_or_after(sd15):
    def free(model):
        return core_node("nodes_freelunch", "FreeU", model, 1.1, 1.2, 0.9, 0.2)

    before = translate(banked(free(sd15)), frames(COUNT))
    assert torch.equal(before, translate(free(banked(sd15)), frames(COUNT)))
    assert differ(before, translate(banked(sd15), frames(COUNT)), translate(sd15, frames(COUNT)))


@pytest.mark.parametrize("first", [True, False])
def test_hypertile_is_refused(sd15, first):
    def tiled(model):
        return core_node("nodes_hypertile", "HyperTile", model, 32, 2, 0, False)

    model = banked(tiled(sd15)) if first else tiled(banked(sd15))
    error = core("host.sd15").UnsupportedModelError
    with pytest.raises(error, match="HyperTile does that.*'Apply Feature Bank'.*Remove it"):
        translate(model, frames(2, (8, 16)))


@pytest.mark.parametrize("first", [True, False])
def test_token_merging_runs_or_is_refused(sd15, first):
    """ToMe shrinks the queries; behind the bank, its output patch would be behind the fusion."""

    def merging(model):
        return core_node("nodes_tomesd", "TomePatchModel", model, 0.5)

    if first:
        model = banked(merging(sd15), fuse=("down 1",))
        assert translate(model, frames(COUNT)).isfinite().all()
        return
    error = core("stream.call_plan").FeatureSizeError
    with pytest.raises(error, match="TomePatchModel.*Put it before 'Apply Feature Bank'"):
        translate(merging(banked(sd15, fuse=("down 1",))), frames(COUNT))


def test_nodes_that_shrink_some_steps_are_refused(sd15):
    settings = (3, 2.0, 0.0, 0.6, True, "bicubic", "bicubic")
    shrunk = core_node("nodes_model_downscale", "PatchModelAddDownscale", banked(sd15), *settings)
    error = core("stream.call_plan").FeatureSizeError
    with pytest.raises(error, match="within a stream.*PatchModelAddDownscale.*remove it"):
        translate(shrunk, frames(COUNT, (16, 20)), steps=3)
