"""Live streams through the nodes, inside ComfyUI's process: cut, saved, mixed, changed, stopped."""

import gc
import weakref
from importlib import import_module

import comfy.model_management
import pytest
import torch
from clips import make_lossless
from host_stream import core, node, patched, prompt, random
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_stream_inputs import (
    HEIGHT,
    WIDTH,
    TinyDepth,
    TinyVAE,
    load,
    pictures,
    reset,
    sampled,
    save,
    step,
    stream,
)
from stream_video import translated

WARMUP, WINDOW = 2, 4
pytestmark = pytest.mark.usefixtures("streams")


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, WINDOW, WARMUP)


# The same frames as anywhere else


def test_one_frame_a_run_equals_the_stream_sampler(model, vae):
    images = pictures(12)
    assert torch.equal(stream(images, model, vae), sampled(images, model, vae))


def test_depth_equals_estimate_depth_with_a_running_range(model, vae):
    images, ranges, depth_model = pictures(9), core("depth.ranges"), TinyDepth()
    resize = core("depth.model").resize_depth
    depth = ranges.normalise(depth_model.infer(images), ranges.RUNNING)
    depth = resize(depth, HEIGHT, WIDTH)[..., None].repeat(1, 1, 1, 3)
    expected = sampled(images, model, vae, depth)
    found = stream(images, model, vae, depth_model=depth_model)
    assert torch.equal(found, expected)
    assert not torch.equal(found, sampled(images, model, vae))


def test_guidance_and_sigmas(model, vae):
    images = pictures(7)
    levels = torch.tensor(core("host.sd15").host_schedule(model, 4, 0.75).sigmas)
    found = stream(images, model, vae, cfg=2.0, sigmas=levels)
    assert torch.equal(found, sampled(images, model, vae, cfg=2.0, sigmas=levels))


@pytest.mark.long
def test_two_hundred_frames(model, vae, folders):
    """One per run through Stream Step, a clip through Stream Sampler, a video: the same bits."""
    pixels = pictures(200, (32, 32)).repeat(1, 2, 2, 1).mul(255).round()
    images = pixels / 255.0
    found = stream(images, model, vae)
    assert torch.equal(found, sampled(images, model, vae))
    video = translated(make_lossless(folders, pixels.byte().numpy()), model, vae)
    assert torch.equal(video, found.mul(255).round().byte())


@pytest.mark.fuzz
@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_cut_changes_anything(model, vae, folders, streams, data):
    """Sizes 1 to 8; saved, let go and loaded between any two of them, in a fresh registry."""
    cuts = data.draw(st.lists(st.integers(1, 8), min_size=1, max_size=5))
    saves = data.draw(st.sets(st.integers(1, len(cuts))))
    images = pictures(sum(cuts), seed=len(cuts))
    streams.clear()
    done = []
    for index, piece in enumerate(images.split(cuts)):
        if index in saves:
            save()
            streams.clear()
            load()
        result, first, _ = step(piece, model, vae, finish=index == len(cuts) - 1)
        done += [result] if first >= 0 else []
    assert (torch.cat(done) - sampled(images, model, vae)).abs().max() <= 1e-5


# What comes out when


def test_outputs_over_time(model, vae):
    """Warm-up 2, two denoising steps: nothing, both, nothing while the pipeline fills, then one."""
    images = pictures(6)
    expected = sampled(images, model, vae)
    results = [step(image[None], model, vae) for image in images]
    assert [(index, warming) for _, index, warming in results] == [
        (-1, True),
        (0, False),
        (-1, False),
        (2, False),
        (3, False),
        (4, False),
    ]
    assert torch.equal(results[0][0], images[:1])
    assert torch.equal(results[1][0], expected[:2])
    assert torch.equal(results[2][0], expected[1:2])
    assert torch.equal(results[5][0], expected[4:5])


def test_finish_gives_all_and_ends(model, vae, streams):
    images = pictures(5)
    result, index, warming = step(images, model, vae, finish=True)
    assert torch.equal(result, sampled(images, model, vae)) and (index, warming) == (0, False)
    assert streams.streams() == []
    assert step(images[:1], model, vae)[1:] == (-1, True)


def test_hold_last_while_warming_up(model, vae):
    hold = {"during_warmup": "hold last"}
    first, index, _ = step(pictures(1), model, vae, **hold)
    assert index == -1 and first.shape == (1, HEIGHT, WIDTH, 3) and first.abs().max() == 0
    last = step(pictures(4), model, vae, **hold)[0][-1:]
    held, index, warming = step(pictures(1), model, vae, seed=9, **hold)
    assert (index, warming) == (-1, True) and torch.equal(held, last)
    larger = step(pictures(1, (128, 160)), model, vae, seed=9, **hold)[0]
    assert larger.shape == (1, 128, 160, 3) and torch.equal(larger[:, ::2, ::2], last)


def test_without_a_motion_module(sd15, vae):
    images = pictures(4)
    assert torch.equal(stream(images, sd15, vae), sampled(images, sd15, vae))


# Going on, and starting over


def test_two_streams_never_mix(model, vae):
    one, two = pictures(7), pictures(7, seed=1)
    found = {"one": [], "two": []}
    for index in range(7):
        for name, images in (("one", one), ("two", two)):
            found[name].append(step(images[index : index + 1], model, vae, stream=name))
    for name, images in (("one", one), ("two", two)):
        done = torch.cat([result for result, index, _ in found[name] if index >= 0])
        assert torch.equal(done, sampled(images, model, vae)[: len(done)]) and len(done) == 6


CHANGES = {
    "size": {},
    "seed": {"seed": 4},
    "guidance": {"cfg": 1.5},
    "timesteps": {"denoise": 0.75},
    "depth": {"depth_model": True},
    "areas of the prompt": {"positive": prompt(area=(8, 8, 0, 0))},
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_settings_start_over_and_say_so(model, vae, caplog, monkeypatch, what):
    shown, changes = [], dict(CHANGES[what])
    if "depth_model" in changes:
        changes["depth_model"] = TinyDepth()
    live = import_module("comfyui_live2diff.nodes.live")
    monkeypatch.setattr(live, "show_text", lambda _, text: shown.append(text))
    step(pictures(5), model, vae)
    size = (64, 64) if what == "size" else (HEIGHT, WIDTH)
    images = pictures(5, size, seed=1)
    with caplog.at_level("INFO"):
        first = step(images[:1], model, vae, **changes)
    assert first[1:] == (-1, True)
    (said,) = [r.message for r in caplog.records if "starts over" in r.message]
    assert f"'live' starts over: {what} " in said or f", {what} " in said
    assert what in shown[-1] and "live: warming up, 1 frames so far" in shown[-1]
    rest = step(images[1:], model, vae, finish=True, **changes)[0]
    fresh = step(images, model, vae, stream="fresh", finish=True, **changes)[0]
    assert torch.equal(rest, fresh)


def test_other_attention_settings_start_over(sd15, motion, vae, caplog):
    step(pictures(5), patched(sd15, motion, 4, 2), vae)
    with caplog.at_level("INFO"):
        assert step(pictures(1), patched(sd15, motion, 5, 3), vae)[2]
    assert "window size 4 -> 5, warm-up frames 2 -> 3" in caplog.text
    step(pictures(5), patched(sd15, motion, 5, 3), vae)
    with caplog.at_level("INFO"):
        step(pictures(1), sd15, vae)
    assert "motion module" in caplog.text and "-> none" in caplog.text


def test_a_new_prompt_goes_on_or_starts_over(model, vae):
    other = {"positive": prompt(5)}
    images = pictures(7)
    step(images[:5], model, vae)
    kept, index, _ = step(images[5:6], model, vae, **other)
    assert index == 4
    assert step(images[6:], model, vae, **other)[1] == 5
    start_over = {"on_prompt_change": "start over"}
    assert step(images[:1], model, vae, **other, **start_over)[1] == 6
    assert step(images[:1], model, vae, **start_over)[1:] == (-1, True)


def test_reset_one_and_all(model, vae, streams):
    for name in "abc":
        step(pictures(3), model, vae, stream=name)
    assert reset("b", on=False, after=7) == 7 and len(streams.streams()) == 3
    reset("b")
    assert [info.name for info in streams.streams()] == ["c", "a"]
    reset("never seen")
    reset("all")
    assert streams.streams() == []


@pytest.mark.parametrize("name", ["", "  ", "all"])
def test_names_that_mean_no_stream(model, vae, name):
    with pytest.raises(ValueError, match="needs a name"):
        step(pictures(1), model, vae, stream=name)


def test_list_on_the_node(model, vae, streams):
    step(pictures(3), model, vae, stream="other")
    step(pictures(3), model, vae)
    text = import_module("comfyui_live2diff.nodes.live_streams")
    lines = text.stream_text("live").splitlines()
    assert lines[0] == "live: 2 frames finished"
    assert lines[2].startswith("live: ") and lines[2].endswith("MB, idle for 0 s")
    assert lines[3].startswith("other: ")


def test_total_size_drops_the_least_recently_used(model, vae, streams):
    for name in "abc":
        step(pictures(3), model, vae, stream=name)
    each = streams.get("a").nbytes
    step(pictures(1), model, vae, stream="a", max_total_gb=2.5 * each / 1e9)
    assert [info.name for info in streams.streams()] == ["a", "c"]


# The host between prompts


def test_nothing_of_the_host_stays_alive(sd15, motion, vae):
    model = patched(sd15, motion, WINDOW, WARMUP)
    step(pictures(3), model, vae)
    kept = weakref.ref(model)
    comfy.model_management.unload_all_models()
    del model
    gc.collect()
    assert kept() is None


def test_goes_on_with_reloaded_models(golden, golden_folder, motion, model, vae):
    """Other objects, other ids, same contents: as after other workflows and an unload."""
    images = pictures(8)
    expected = sampled(images, model, vae)
    step(images[:4], model, vae)
    comfy.model_management.unload_all_models()
    module, engine = golden
    motion_again = engine.live2diff_patch.load_motion_module(str(golden_folder / "live2diff.ckpt"))
    sd15_again = module.build_sd15(golden_folder / "unet.safetensors")
    again = patched(sd15_again, motion_again, WINDOW, WARMUP)
    result, index, _ = step(images[4:], again, TinyVAE(), finish=True)
    assert index == 3 and torch.equal(result, expected[3:])


def lora(model, seed=0, strength=1.0):
    """A clone with a patch on one of the UNet's weights."""
    key = "diffusion_model.input_blocks.1.1.proj_in.weight"
    weight = model.model.state_dict()[key]
    clone = model.clone()
    clone.add_patches({key: (random(*weight.shape, seed=seed) * 0.01,)}, strength)
    return clone


def test_loras_are_told_apart_by_content_and_strength(model):
    fingerprint = core("host.identity").model_identity
    plain = fingerprint(model)
    same = [fingerprint(each) for each in (model.clone(), lora(model), lora(model))]
    assert same[0] == plain and same[1] == same[2] != plain
    others = [fingerprint(lora(model, 1)), fingerprint(lora(model, strength=0.5))]
    assert len({each["LoRAs"] for each in [plain, same[1], *others]}) == 4
    assert len({each["model"] for each in [plain, same[1], *others]}) == 1


def test_a_patched_model_in_memory_has_the_weights_it_had(golden, golden_folder, motion):
    """The host writes LoRAs into the weights when it loads a model."""
    fingerprint = core("host.identity").model_identity
    models = [golden[0].build_sd15(golden_folder / "unet.safetensors") for _ in range(2)]
    loaded = lora(models[0])
    comfy.model_management.load_models_gpu([loaded])
    assert loaded.backup
    assert fingerprint(loaded) == fingerprint(lora(models[1]))


def test_recognising_costs_little(model, benchmark_seconds):
    fingerprint = core("host.identity").model_identity
    changed = lora(model)
    fingerprint(changed)
    conds = [[torch.zeros(1, 77, 768), {}]]
    assert benchmark_seconds(lambda: fingerprint(changed)) < 2e-3
    name_prompt = core("host.identity").prompt_identity
    assert benchmark_seconds(lambda: name_prompt(conds)) < 2e-3


@pytest.fixture
def benchmark_seconds():
    import timeit

    return lambda call: min(timeit.repeat(call, number=1, repeat=20))


def test_memory_of_the_caches_is_asked_for_once(model, vae, caplog):
    with caplog.at_level("INFO"):
        for image in pictures(6):
            step(image[None], model, vae)
    # The first run makes room, and allocates them.
    assert caplog.text.count("the stream's memory takes") == 1


def test_an_interrupt_loses_no_frame(model, vae, monkeypatch):
    images = pictures(8)
    expected = sampled(images, model, vae)
    step(images[:2], model, vae)
    host_model = core("host.model").HostModel
    calls, run = [], host_model.__call__

    def stop_at_third(self, x, plan):
        calls.append(plan)
        if len(calls) == 3:
            raise comfy.model_management.InterruptProcessingException
        return run(self, x, plan)

    with monkeypatch.context() as patch:
        patch.setattr(host_model, "__call__", stop_at_third)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            step(images[2:6], model, vae)
    # Two of the four went in and one came out; the rest of that run's frames never went in.
    result, index, _ = step(images[4:], model, vae, finish=True)
    assert index == 2 and torch.equal(result, expected[2:])


# Bad input


@pytest.mark.parametrize(
    "images, message",
    [
        (torch.zeros(0, 64, 64, 3), "no frame"),
        (torch.zeros(1, 60, 64, 3), "64x60 pixels .* to 64x56"),
        (torch.full((1, 64, 64, 3), float("nan")), "NaN"),
    ],
)
def test_bad_frames(model, vae, images, message):
    with pytest.raises(ValueError, match=message):
        step(images, model, vae)


def test_alpha_is_left_out(model, vae):
    images = pictures(4)
    alpha = torch.cat([images, torch.rand(4, HEIGHT, WIDTH, 1)], dim=3)
    assert torch.equal(stream(alpha, model, vae), sampled(images, model, vae))


def test_batches_of_prompts_are_refused(model, vae):
    several = [[random(3, 77, 32), {}]]
    with pytest.raises(ValueError, match="Stream Step: .* must be a single one"):
        step(pictures(1), model, vae, positive=several)


def test_a_refused_prompt_leaves_the_stream(model, vae):
    images = pictures(6)
    step(images[:4], model, vae)
    with pytest.raises(ValueError, match="must be a single one"):
        step(images[4:5], model, vae, positive=[[random(3, 77, 32), {}]])
    assert step(images[4:5], model, vae)[1] == 3


def test_runs_every_time(pack):
    for module, name in (
        ("live", "Live2DiffStreamStep"),
        ("live_streams", "Live2DiffResetStream"),
        ("live_files", "Live2DiffSaveStream"),
        ("live_files", "Live2DiffLoadStream"),
    ):
        first, second = (node(module, name).fingerprint_inputs(stream="live") for _ in "12")
        assert first != first and [first] != [second]
