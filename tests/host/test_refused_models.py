"""MODELs and inputs that no stream can run are refused in plain words; unread ones are not."""

from importlib import import_module

import comfy.hooks
import folder_paths
import pytest
import torch
from host_bank import banked
from host_stream import core, frames, node, patched, prompt, random, translate
from live_stream_inputs import HEIGHT, WIDTH, TinyVAE, pictures, sampled, step, stream

COUNT = 5
# SAG blurs where the deepest level has some pixels to tell apart.
WIDE = (128, 128)


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, 4, 2)


@pytest.fixture(autouse=True)
def streams(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    registry = core("run.registry").STREAMS
    registry.clear()
    yield registry
    registry.clear()


def refused(match):
    return pytest.raises(core("host.sd15").UnsupportedModelError, match=match)


def with_sag(model):
    """Core's Self-Attention Guidance."""
    made = import_module("comfy_extras.nodes_sag").SelfAttentionGuidance
    if hasattr(made, "execute"):
        return made.execute(model, 0.5, 2.0).args[0]
    return made().patch(model, 0.5, 2.0)[0]


def guided(mode, cfg):
    options = node("options", "Live2DiffStreamOptions")
    return {"options": options.execute(mode, 1.0, "fresh per frame", "lcm").args[0], "cfg": cfg}


# Guidance nodes


@pytest.mark.parametrize("run", [sampled, stream], ids=["Stream Sampler", "Stream Step"])
@pytest.mark.parametrize("mode, cfg", [("full", 1.0), ("self", 2.0), ("initialize", 2.0)])
def test_self_attention_guidance_needs_the_negative_at_every_step(model, run, mode, cfg):
    with refused("needs the negative prompt at every step.*Set cfg .* 'full', or remove"):
        run(pictures(COUNT), with_sag(model), TinyVAE(), **guided(mode, cfg))


def test_self_attention_guidance_runs_with_full_guidance(model):
    images, options = pictures(COUNT, WIDE), guided("full", 2.0)
    found = sampled(images, with_sag(model), TinyVAE(), **options)
    assert found.shape == images.shape and found.isfinite().all()
    assert not torch.equal(found, sampled(images, model, TinyVAE(), **options))


# Nodes that change the sampling as a whole


def with_node(module, name, model, *settings):
    """One of the host's own nodes on a MODEL."""
    made = getattr(import_module(f"comfy_extras.{module}"), name, None)
    if made is None:
        pytest.skip(f"this ComfyUI has no {name}")
    if hasattr(made, "execute"):
        return made.execute(model, *settings).args[0]
    return getattr(made(), made.FUNCTION)(model, *settings)[0]


WINDOWS = (16, 4, "standard_static", 1, False, "pyramid", 0)
WHOLE = {
    "EasyCache": ("nodes_easycache", "EasyCacheNode", 0.2, 0.15, 0.95, False),
    "LazyCache": ("nodes_easycache", "LazyCacheNode", 0.2, 0.15, 0.95, False),
    "CFGOverride": ("nodes_custom_sampler", "CFGOverride", 2.0, 0.0, 1.0),
    "Context Windows": ("nodes_context_windows", "ContextWindowsManualNode", *WINDOWS, False),
    "FreeNoise": ("nodes_context_windows", "ContextWindowsManualNode", *WINDOWS, True),
}
NODES = pytest.mark.parametrize("run", [sampled, stream], ids=["Stream Sampler", "Stream Step"])


@pytest.fixture
def nothing_loads(monkeypatch):
    """Loading any model fails."""
    monkeypatch.setattr("comfy.model_management.load_models_gpu", None)


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("first", [True, False], ids=["before Apply Live2Diff", "after it"])
@NODES
def test_nodes_that_wrap_sampling_as_a_whole_are_refused(sd15, motion, run, name, first):
    wrapped = with_node(
        *WHOLE[name][:2], sd15 if first else patched(sd15, motion), *WHOLE[name][2:]
    )
    model = patched(wrapped, motion) if first else wrapped
    shown = "Context Windows" if name == "FreeNoise" else name
    with refused(f"'{shown}' on this MODEL.*Remove that node, or connect the MODEL from before"):
        run(pictures(COUNT), model, TinyVAE())


@pytest.mark.parametrize("key", ["some pack", None])
@pytest.mark.parametrize("kind", ["outer_sample", "sampler_sample", "predict_noise"])
def test_wrappers_of_other_packs_are_refused_by_name(model, monkeypatch, key, kind):
    def somebodys_node():
        return lambda executor, *args, **kwargs: executor(*args, **kwargs)

    on_model, in_options, hook = model.clone(), model.clone(), comfy.hooks.TransformerOptionsHook()
    on_model.add_wrapper_with_key(kind, key, somebodys_node())
    wrappers = {"wrappers": {kind: {key: [somebodys_node()]}}}
    in_options.model_options["transformer_options"].update(wrappers)
    hook.transformers_dict = {"wrappers": {kind: {key: [somebodys_node()]}}}
    hooks = comfy.hooks.HookGroup()
    hooks.add(hook)
    hooked = comfy.hooks.set_hooks_for_conditioning(prompt(), hooks)
    name = f"'{key or 'test_wrappers_of_other_packs_are_refused_by_name'}' on this MODEL"
    loaded = []
    monkeypatch.setattr(
        "comfy.model_management.load_models_gpu",
        lambda models, *_, **__: loaded.extend(m.model for m in models),
    )
    for wrapped, positive in ((on_model, prompt()), (in_options, prompt()), (model, hooked)):
        with refused(name):
            stream(pictures(COUNT), wrapped, TinyVAE(), positive=positive)
        assert model.model not in loaded


@pytest.mark.parametrize("kind", ["calc_cond_batch", "apply_model", "diffusion_model"])
def test_wrappers_of_a_models_calls_run(model, kind):
    calls = []

    def count(executor, *args, **kwargs):
        calls.append(kind)
        return executor(*args, **kwargs)

    wrapped = model.clone()
    wrapped.add_wrapper_with_key(kind, "some pack", count)
    found = stream(pictures(COUNT), wrapped, TinyVAE())
    assert calls and torch.equal(found, stream(pictures(COUNT), model, TinyVAE()))


VARIANTS = ["eps", "v_prediction", "lcm", "x0", "img_to_img", "img_to_img_flow"]


def with_sampling(model, variant):
    return with_node("nodes_model_advanced", "ModelSamplingDiscrete", model, variant, False)


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("variant", VARIANTS)
@NODES
def test_sampling_replaced_after_apply_live2diff_is_refused(model, run, variant):
    with refused("that 'Apply Live2Diff' set was replaced.*ModelSamplingDiscrete.*put it before"):
        run(pictures(COUNT), with_sampling(model, variant), TinyVAE())


@pytest.mark.parametrize("variant", VARIANTS)
def test_sampling_replaced_before_apply_live2diff(sd15, motion, variant):
    changed = with_sampling(sd15, variant)
    if variant in ("x0", "img_to_img", "img_to_img_flow"):
        with refused("predicts neither noise nor v .*Remove that node"):
            patched(changed, motion, 4, 2)
    else:
        assert sampled(pictures(2), patched(changed, motion, 4, 2), TinyVAE()).isfinite().all()


@pytest.mark.usefixtures("nothing_loads")
@pytest.mark.parametrize("variant", ["lcm", "x0", "img_to_img", "img_to_img_flow"])
@NODES
def test_sampling_that_no_stream_has_is_refused_without_a_memory(sd15, run, variant):
    with refused("This MODEL's sampling was changed.*connect the MODEL from before that node"):
        run(pictures(COUNT), with_sampling(sd15, variant), TinyVAE())


# Self-attentions that two nodes want


def replaced(model, transformer=None):
    """Replace the self-attention of the middle: of the block, or of its one transformer."""
    clone = model.clone()
    clone.set_model_attn1_replace(lambda q, k, v, options: v, "middle", 0, transformer)
    return clone


as_block_or_transformer = pytest.mark.parametrize("transformer", [None, 0])


@as_block_or_transformer
def test_a_node_behind_the_feature_bank_takes_its_self_attention(sd15, transformer):
    with refused("behind 'Apply Feature Bank' replaced the self-attention of middle.*Remove it"):
        translate(replaced(banked(sd15), transformer), frames(2))


@as_block_or_transformer
def test_a_node_before_the_feature_bank_has_it_already(sd15, transformer):
    with refused("already replaced the self-attention of middle.*Remove it, or leave that level"):
        banked(replaced(sd15, transformer))


def test_self_attention_guidance_and_the_feature_bank_both_want_the_middle(sd15):
    with refused("behind 'Apply Feature Bank' replaced the self-attention of middle"):
        sampled(pictures(2, WIDE), with_sag(banked(sd15)), TinyVAE(), **guided("full", 2.0))
    with refused("already replaced the self-attention of middle"):
        banked(with_sag(sd15))
    others = {"fuse": ("up 2",), "extend": ("up 2", "up 3")}
    both = with_sag(banked(sd15, **others))
    assert len(sampled(pictures(2, WIDE), both, TinyVAE(), **guided("full", 2.0))) == 2


@as_block_or_transformer
def test_levels_that_the_bank_leaves_out_may_be_replaced(sd15, transformer):
    others = {"fuse": ("up 2",), "extend": ("up 2", "up 3")}
    before = translate(banked(replaced(sd15, transformer), **others), frames(3))
    behind = translate(replaced(banked(sd15, **others), transformer), frames(3))
    assert torch.equal(before, behind)
    assert not torch.equal(before, translate(banked(sd15, **others), frames(3)))


# Prompts and pictures


def wide_prompt():
    return [[random(1, 77, 2048), {}]]


@pytest.mark.parametrize("run", [sampled, stream], ids=["Stream Sampler", "Stream Step"])
@pytest.mark.parametrize(
    "positive, message",
    [
        (wide_prompt, "positive prompt has 2048 channels, but this MODEL reads 32.*SD1.5"),
        (list, "positive prompt is empty: connect a CLIP Text Encode"),
    ],
)
def test_prompts_that_this_model_cannot_read(model, run, positive, message):
    with refused(message):
        run(pictures(2), model, TinyVAE(), positive=positive())


@pytest.mark.parametrize("negative, what", [(wide_prompt, "2048 channels"), (list, "is empty")])
def test_negatives_that_this_model_cannot_read(model, negative, what):
    with refused(f"negative prompt .*{what}"):
        step(pictures(1), model, TinyVAE(), negative=negative(), cfg=2.0)


@pytest.mark.parametrize(
    "image, shape",
    [
        (torch.zeros(1, HEIGHT, WIDTH, 1), [1, HEIGHT, WIDTH, 1]),
        (torch.zeros(1, HEIGHT, WIDTH, 2), [1, HEIGHT, WIDTH, 2]),
        (torch.zeros(HEIGHT, WIDTH, 3), [HEIGHT, WIDTH, 3]),
    ],
)
def test_images_that_are_no_pictures(sd15, image, shape):
    with pytest.raises(ValueError) as error:
        step(image, sd15, TinyVAE())
    said = f"Stream Step: expected an IMAGE [frames, height, width, 3], got {shape}."
    assert str(error.value) == said


# Negatives that are not read


def follow(before, after, start, memory):
    schedule = node("prompts", "Live2DiffPromptSchedule")
    return schedule.execute(before, after, start, 0, memory).args[0]


NEGATIVES = {
    "a resetting schedule": lambda: follow(prompt(1), prompt(6), 3, "reset"),
    "too few masks": lambda: prompt(1, mask=torch.ones(3, 64, 80)),
    "too few texts": lambda: [[random(3, 77, 32), {}]],
    "another CLIP": wide_prompt,
    "none": list,
}


@pytest.mark.parametrize(
    "mode, cfg, schedule",
    [("full", 1.0, False), ("full", 1.0, True), ("self", 2.0, True), ("none", 2.0, True)],
)
def test_an_unread_negative_changes_nothing(model, mode, cfg, schedule):
    """Nor beside a schedule of positives, where every row has a text of its own."""
    positive = follow(prompt(), prompt(5), 2, "keep") if schedule else prompt()
    settings = {"guidance": mode, "cfg": cfg, "positive": positive}
    expected = translate(model, frames(COUNT), negative=prompt(1), **settings)
    for what, make in NEGATIVES.items():
        found = translate(model, frames(COUNT), negative=make(), **settings)
        assert torch.equal(found, expected), what


def test_a_read_negative_resets_the_memory(model):
    found, kept = (
        translate(model, frames(COUNT), cfg=2.0, negative=follow(prompt(1), prompt(6), 3, memory))
        for memory in ("reset", "keep")
    )
    assert not torch.equal(found, kept)


def test_a_read_negative_must_have_a_mask_for_each_frame(model):
    error = core("host.frame_conditions").FrameConditionError
    with pytest.raises(error, match="has 3 masks for 5 frames"):
        translate(model, frames(COUNT), cfg=2.0, negative=NEGATIVES["too few masks"]())


def test_an_unread_negative_does_not_start_a_live_stream_over(model):
    settings = {"on_prompt_change": "start over"}
    step(pictures(4), model, TinyVAE(), **settings)
    for index, what in enumerate(("a resetting schedule", "too few texts", "another CLIP")):
        result = step(pictures(1), model, TinyVAE(), negative=NEGATIVES[what](), **settings)
        assert result[1:] == (3 + index, False)
