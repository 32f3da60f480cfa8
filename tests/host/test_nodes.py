"""The nodes as ComfyUI calls them: results, refusals and what they say of themselves."""

import asyncio
import inspect
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import comfy.utils
import folder_paths
import pytest
import torch
from host_stream import core, frames, node, prompt, relative_error, translate

ROOT = Path(__file__).resolve().parents[2]
COUNT = 6
NODES = (
    "Live2DiffLoadMotionModule",
    "Live2DiffSettings",
    "Live2DiffApply",
    "Live2DiffApplyFeatureBank",
    "Live2DiffLoadDepthModel",
    "Live2DiffEstimateDepth",
    "Live2DiffPromptSchedule",
    "Live2DiffStreamOptions",
    "Live2DiffSimilarFrameFilter",
    "Live2DiffStreamSampler",
    "Live2DiffStreamVideo",
    "Live2DiffVideoFromFolder",
    "Live2DiffPartialResults",
    "Live2DiffStreamStep",
    "Live2DiffResetStream",
    "Live2DiffSaveStream",
    "Live2DiffLoadStream",
    "Live2DiffLiveStream",
    "Live2DiffLoadRecording",
    "Live2DiffMeasureVideo",
    "Live2DiffLoadSampleModel",
    "Live2DiffLoadStreamingT2V",
    "Live2DiffLongVideo",
    "Live2DiffExtendVideo",
    "Live2DiffLoadVideoEnhancer",
    "Live2DiffEnhanceVideo",
)


@torch.inference_mode()
def sample(model, latents=None, depth=None, **settings):
    """Run the Stream Sampler and return its LATENT."""
    inputs = {
        "positive": prompt(),
        "negative": prompt(1),
        "frames": {"samples": frames(COUNT) if latents is None else latents},
        "seed": 3,
        "steps": 4,
        "denoise": 0.5,
        "cfg": 1.0,
        "depth": None if depth is None else {"samples": depth},
        **settings,
    }
    return node("sampler", "Live2DiffStreamSampler").execute(model=model, **inputs).args[0]


def settings_node(warmup=8, window=16, mode="causal_warmup"):
    return node("motion", "Live2DiffSettings").execute(warmup, window, mode).args[0]


def apply_node(model, motion, settings=None):
    return node("motion", "Live2DiffApply").execute(model, motion, settings).args[0]


def tiny(sd15, kind, **changes):
    """Another kind of diffusion model, as small as the traces' SD1.5."""
    config = kind({**sd15.model.model_config.unet_config, **changes})
    config.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(
        config.get_model({}, ""), load_device=cpu, offload_device=cpu
    )


# What they give


def test_sampler_gives_what_the_engine_gives(sd15, motion):
    """Latents are scaled into the model's range and back; the rest of the LATENT is kept."""
    model = apply_node(sd15, motion, settings_node(2, 4))
    latents, depth = frames(COUNT), frames(COUNT, seed=1)
    scale = 0.18215
    expected = translate(model, latents * scale, depth * scale) / scale
    output = sample(model, latents, depth, frames={"samples": latents, "batch_index": [*range(6)]})
    assert relative_error(output["samples"], expected) < 1e-5
    assert output["batch_index"] == [*range(6)]


def test_settings_are_the_papers_by_default(sd15, motion):
    def applied(model):
        return core("stream.memory").applied_memories(model)["live2diff"]

    default = applied(apply_node(sd15, motion)).window
    assert default == settings_node() == core("live2diff.window").AttentionWindow(16, 8)
    chosen = applied(apply_node(sd15, motion, settings_node(3, 9, "causal"))).window
    assert chosen == core("live2diff.window").AttentionWindow(
        9, 3, core("live2diff.window").AttentionMode.CAUSAL
    )


def test_plain_model_translates_frame_by_frame(sd15):
    """Without a motion module a frame depends on itself and its noise alone."""
    latents = frames(COUNT)
    changed = latents.clone()
    changed[2] += 1
    one, other = (sample(sd15, each)["samples"] for each in (latents, changed))
    for frame in range(COUNT):
        assert (relative_error(one[frame], other[frame]) < 1e-4) == (frame != 2)


@pytest.mark.parametrize("count", [1, 8, 9])
def test_as_many_frames_as_came(sd15, motion, count):
    assert len(sample(apply_node(sd15, motion), frames(count))["samples"]) == count


def test_input_is_not_changed(sd15, motion):
    latents = frames(COUNT)
    given = {"samples": latents.clone()}
    sample(apply_node(sd15, motion, settings_node(2, 4)), frames=given)
    assert given.keys() == {"samples"} and torch.equal(given["samples"], latents)


def test_half_precision_latents(sd15, motion):
    model = apply_node(sd15, motion, settings_node(2, 4))
    output = sample(model, frames(COUNT).half())["samples"]
    assert output.isfinite().all() and output.dtype is torch.float16
    assert relative_error(output.float(), sample(model)["samples"]) < 0.05


@pytest.fixture
def shown(monkeypatch):
    """What the Stream Sampler shows: (frames done, frames, shape of the previewed latent)."""
    import latent_preview

    told = []

    class Bar:
        def __init__(self, total, node_id=None):
            pass

        def update_absolute(self, done, total, preview=None):
            told.append((done, total, preview))

    class Previewer:
        def decode_latent_to_preview_image(self, kind, x0):
            return tuple(x0.shape)

    monkeypatch.setattr(comfy.utils, "ProgressBar", Bar)
    monkeypatch.setattr(latent_preview, "get_previewer", lambda device, kind: Previewer())
    return told


def test_progress_counts_frames_in_order(shown, sd15, motion):
    sample(apply_node(sd15, motion, settings_node(2, 4)))
    assert [told[:2] for told in shown] == [(frame, COUNT) for frame in range(1, COUNT + 1)]


def test_previews_are_of_one_latent_and_half_a_second_apart(shown, sd15, monkeypatch):
    clock = iter([0.0, 0.3, 0.51, 0.9, 1.02, 1.1])
    progress = import_module("comfyui_live2diff.nodes.progress")
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    latent = (1, *frames(1).shape[1:])
    sample(sd15)
    # The last frame is shown, however soon it comes.
    assert [told[2] for told in shown] == [latent, None, latent, None, latent, latent]


@pytest.mark.parametrize("network", [False, True])
def test_a_previewing_network_gets_latents_on_its_device(shown, sd15, monkeypatch, network):
    """TAESD's weights are on the model's device; the other previewer needs none to wait for."""
    import latent_preview

    class Previewer:
        def decode_latent_to_preview_image(self, kind, x0):
            return x0.device.type

    previewer = Previewer()
    if network:
        previewer.taesd = object()
    monkeypatch.setattr(latent_preview, "get_previewer", lambda device, kind: previewer)
    progress = import_module("comfyui_live2diff.nodes.progress")
    model = SimpleNamespace(load_device=torch.device("meta"), model=sd15.model)
    progress.LatentProgress(model, 1)(1, frames(1)[0])
    assert shown[0][2] == ("meta" if network else "cpu")


def test_a_run_is_interrupted_between_frames_that_are_not_previewed(shown, sd15, monkeypatch):
    progress = import_module("comfyui_live2diff.nodes.progress")
    model = SimpleNamespace(load_device=sd15.load_device, model=sd15.model)

    def interrupted():
        if len(shown) == 2:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(
        comfy.model_management, "throw_exception_if_processing_interrupted", interrupted
    )
    told = progress.LatentProgress(model, COUNT)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        for done, x0 in enumerate(frames(COUNT), 1):
            told(done, x0)
    assert len(shown) == 2


# SIGMAS


def test_sigmas_replace_steps_and_denoise(sd15, motion):
    model = apply_node(sd15, motion, settings_node(2, 4))
    expected = sample(model, steps=4, denoise=0.75)["samples"]
    levels = torch.tensor(core("host.sd15").host_schedule(model, 4, 0.75).sigmas)
    for sigmas in (levels, torch.cat([levels, torch.zeros(1)])):
        found = sample(model, steps=1, denoise=0.1, sigmas=sigmas)["samples"]
        assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize("scheduler", ["simple", "normal", "karras", "sgm_uniform", "beta"])
def test_core_schedulers(sd15, motion, scheduler):
    model = apply_node(sd15, motion, settings_node(2, 4))
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, 3)
    output = sample(model, frames(3), sigmas=sigmas)["samples"]
    assert output.shape == frames(3).shape and output.isfinite().all()


@pytest.mark.parametrize(
    "sigmas, message",
    [
        ([], "no noise level above 0"),
        ([0.0], "no noise level above 0: it is 0"),
        ([1.0, 2.0], "must fall from step to step; number 2 of 1, 2 is not below the one before"),
        ([2.0, 2.0, 0.0], "number 2 of 2, 2 is not below the one before"),
        ([2.0, float("nan"), 0.0], "must be .*finite.*number 2 of 2, nan is NaN"),
        ([float("nan"), 0.0], "number 1 of nan is NaN"),
        ([float("inf"), 1.0], "number 1 of inf, 1 is infinite"),
        ([2.0, -1.0], "number 2 of 2, -1 is negative"),
        ([2.0, 0.0, 1.0], "number 2 of 2, 0, 1 is 0"),
        ([[2.0], [1.0]], r"have the shape \[2, 1\]"),
        ([*range(10, -1, -1)], "10 denoising steps; 1 to 8 are supported"),
    ],
)
def test_sigmas_that_are_no_schedule(sd15, sigmas, message):
    with pytest.raises(ValueError, match=message):
        sample(sd15, sigmas=torch.tensor(sigmas, dtype=torch.float32))


def test_text_of_manual_sigmas_that_is_no_number(sd15):
    """The host's node drops it: of 'nan, 0' the stream only sees the 0."""
    custom = pytest.importorskip("comfy_extras.nodes_custom_sampler")
    if not hasattr(custom, "ManualSigmas"):
        pytest.skip("this host has no Manual Sigmas")
    sigmas = custom.ManualSigmas.execute("nan,0").args[0]
    with pytest.raises(ValueError, match="it is 0. .*Manual Sigmas, which leaves out .*no number"):
        sample(sd15, sigmas=sigmas)


# Bad input


def bad(count=COUNT, value=None):
    latents = frames(count)
    if value is not None:
        latents[count // 2, 0, 1, 1] = value
    return latents


@pytest.mark.parametrize(
    "latents, depth, message",
    [
        (bad(0), None, r"frames: there are no frames"),
        (bad(value=float("nan")), None, r"frames: frame 3 .*NaN or infinite"),
        (bad(value=float("inf")), None, r"frames: frame 3 .*NaN or infinite"),
        (torch.zeros(2, 16, 8, 8), None, r"frames: expected SD1.5 latents"),
        (torch.zeros(1, 4, 2, 8, 8), None, r"frames: expected SD1.5 latents"),
        (bad(), bad(COUNT - 1), r"depth: 5 depth latents came for 6 frames"),
        (bad(), bad(COUNT + 1), r"depth: 7 depth latents came for 6 frames"),
        (bad(), bad(value=float("nan")), r"depth: frame 3 .*NaN"),
        (
            bad(),
            frames(COUNT, (8, 9)),
            r"depth: the depth latents are 72 x 64 pixels, the frames 80",
        ),
    ],
)
def test_bad_latents(sd15, motion, latents, depth, message):
    with pytest.raises(ValueError, match=message):
        sample(apply_node(sd15, motion), latents, depth)


def test_noise_masks_are_refused(sd15):
    latent = {"samples": frames(2), "noise_mask": torch.ones(1, 64, 80)}
    with pytest.raises(ValueError, match="streams do not inpaint"):
        sample(sd15, frames=latent)


@pytest.mark.parametrize(
    "steps, denoise, message",
    [
        (4, 0.2, r"leave no denoising step. Raise denoise to at least 0.25"),
        (9, 1.0, r"9 denoising steps; 1 to 8 are supported. Use fewer steps or a lower denoise"),
        (4, 1.5, r"more denoising steps than the 4 steps there are"),
        (51, 0.1, r"steps is 51; the schedule has 1 to 50"),
    ],
)
def test_bad_steps(sd15, steps, denoise, message):
    with pytest.raises(ValueError, match=message):
        sample(sd15, steps=steps, denoise=denoise)


def test_window_longer_than_the_position_table(sd15, motion):
    with pytest.raises(
        ValueError, match="window_size is 25, but .* 24 entries. Set the window to 24"
    ):
        apply_node(sd15, motion, settings_node(8, 25))


def test_warmup_that_fills_the_window(pack):
    with pytest.raises(ValueError, match="Choose warmup_frames from 1 to window_size - 1"):
        settings_node(16, 16)


def test_depth_without_a_motion_module(sd15):
    with pytest.raises(
        ValueError, match="Put 'Apply Live2Diff' with live2diff.ckpt before this node"
    ):
        sample(sd15, depth=frames(COUNT))


def test_cache_larger_than_the_memory(monkeypatch, sd15, motion):
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *_, **__: 1000)
    with pytest.raises(
        MemoryError, match=r"needs at least [\d.]+ MB, but cpu has only .* a smaller window"
    ):
        sample(apply_node(sd15, motion))


# Wrong MODELs


@pytest.mark.parametrize("kind", ["SDXL", "SD20", "SD15_instructpix2pix"])
def test_other_models_are_refused(sd15, motion, kind):
    model = tiny(sd15, getattr(comfy.supported_models, kind))
    with pytest.raises(ValueError, match=f"This MODEL is {kind}, but .* SD1.5 only"):
        apply_node(model, motion)
    with pytest.raises(ValueError, match=f"This MODEL is {kind}"):
        sample(model)


def test_inpainting_models_are_refused(sd15, motion):
    model = tiny(sd15, comfy.supported_models.SD15, in_channels=9)
    with pytest.raises(ValueError, match="takes 9 input channels .an inpainting"):
        apply_node(model, motion)
    with pytest.raises(ValueError, match="takes 9 input channels"):
        sample(model)


def test_other_widths_are_refused(sd15, motion):
    model = tiny(sd15, comfy.supported_models.SD15, model_channels=64)
    with pytest.raises(ValueError, match="live2diff.ckpt has widths .* do not belong together"):
        apply_node(model, motion)


# Load Motion Module


@pytest.fixture
def motion_folder(tmp_path, pack, monkeypatch):
    """An empty models folder that is the only one the node knows."""
    known = dict(folder_paths.folder_names_and_paths)
    for name in ("live2diff", "animatediff_models"):
        (tmp_path / name).mkdir()
        known[name] = ([str(tmp_path / name)], {".ckpt", ".pt", ".pth", ".safetensors"})
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", known)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(
        import_module("comfyui_live2diff.nodes.motion"), "motion_module_path", lambda: None
    )
    return tmp_path


def test_loader_lists_and_loads(motion_folder, golden_folder):
    shutil.copy(
        golden_folder / "live2diff.ckpt", motion_folder / "animatediff_models" / "mine.ckpt"
    )
    loader = node("motion", "Live2DiffLoadMotionModule")
    assert loader.define_schema().inputs[0].options == ["mine.ckpt"]
    assert loader.validate_inputs("mine.ckpt") is True
    loaded = loader.execute("mine.ckpt").args[0]
    assert loaded.name == "mine.ckpt" and loaded.layout.depth_channels == 32
    assert "no motion module 'other.ckpt'; found: mine.ckpt" in loader.validate_inputs("other.ckpt")


def test_loader_lists_the_motion_module_of_the_sample_model_beside_others(
    motion_folder, golden_folder, monkeypatch
):
    loading = import_module("comfyui_live2diff.live2diff_core.sample_model.loading")
    monkeypatch.setattr(
        import_module("comfyui_live2diff.nodes.motion"),
        "motion_module_path",
        loading.motion_module_path,
    )
    shutil.copy(golden_folder / "live2diff.ckpt", motion_folder / "live2diff" / "mine.ckpt")
    loader, sample = node("motion", "Live2DiffLoadMotionModule"), "sample_motion_module.safetensors"
    assert loader.define_schema().inputs[0].options == ["mine.ckpt", sample]
    assert loader.execute(sample).args[0].layout.depth_channels > 0
    refused = loader.validate_inputs("live2diff.ckpt")
    assert f"found: mine.ckpt, {sample}. Put Live2Diff's live2diff.ckpt into" in refused


def test_loader_says_what_to_put_where(motion_folder):
    loader = node("motion", "Live2DiffLoadMotionModule")
    (shown,) = loader.define_schema().inputs[0].options
    assert "models/live2diff" in shown
    assert "Put Live2Diff's live2diff.ckpt into" in loader.validate_inputs(shown)
    with pytest.raises(FileNotFoundError, match="was not found. Put Live2Diff's"):
        loader.execute("gone.ckpt")


# What they say of themselves


@pytest.fixture(scope="module")
def classes(pack):
    async def listed():
        extension = await pack.comfy_entrypoint()
        await extension.on_load()
        return await extension.get_node_list()

    # In a thread of its own: a browser test before this one may have left an event loop running.
    with ThreadPoolExecutor(1) as thread:
        nodes = thread.submit(asyncio.run, listed()).result()
    return {cls.define_schema().node_id: cls for cls in nodes}


def test_the_pack_has_its_nodes(classes):
    assert tuple(classes) == NODES


@pytest.mark.parametrize("name", NODES)
def test_every_node_explains_itself(classes, name):
    cls = classes[name]
    cls.VALIDATE_CLASS()
    schema = cls.GET_SCHEMA()
    schema.validate()
    assert cls.GET_NODE_INFO_V1()["name"] == name
    assert schema.category == "Live2Diff"
    assert schema.description and schema.display_name
    for entry in [*schema.inputs, *schema.outputs]:
        assert entry.tooltip and entry.tooltip.endswith("."), entry.id


# Nodes whose other inputs go to a function, which hands those it does not name to a specification.
REST = {
    "Live2DiffLongVideo": ("nodes.long_video_inputs", "make_spec", "spec", "LongVideoSpec"),
    "Live2DiffExtendVideo": ("nodes.long_video_inputs", "make_spec", "spec", "LongVideoSpec"),
    "Live2DiffEnhanceVideo": ("nodes.enhance_video", "_spec", "enhancer_spec", "EnhanceSpec"),
}


def rest_of(name, schema):
    """The inputs of `schema` that the function and the specification of a node take."""
    module, function, file, spec = REST[name]
    taken = inspect.signature(getattr(import_module(f"comfyui_live2diff.{module}"), function))
    fields = inspect.signature(getattr(core(f"streamingt2v.{file}"), spec)).parameters
    optional = {entry.id: entry.optional for entry in schema.inputs}
    return {
        n: inspect.Parameter(n, p.kind, default=None if optional[n] else p.empty)
        for n, p in {**fields, **taken.parameters}.items()
        if n in optional and p.kind is not p.VAR_KEYWORD
    }


@pytest.mark.parametrize("name", NODES)
def test_execute_takes_what_the_schema_promises(classes, name):
    schema = classes[name].GET_SCHEMA()
    parameters = dict(inspect.signature(classes[name].execute).parameters)
    offered = {entry.id for entry in schema.inputs}
    for rest in [n for n, p in parameters.items() if p.kind is p.VAR_KEYWORD]:
        # What all stream nodes have goes on to the description of a stream.
        del parameters[rest]
        if name in REST:
            parameters |= rest_of(name, schema)
            continue
        spec = inspect.signature(core("run.spec").StreamSpec.from_inputs).parameters
        needed = {n for n, p in spec.items() if p.default is p.empty}
        assert needed <= offered - set(parameters) <= set(spec)
        parameters |= {n: p for n, p in spec.items() if n in offered}
        if "vae" in parameters:  # only streams of latents can do without
            parameters["vae"] = parameters["vae"].replace(default=inspect.Parameter.empty)
    assert set(parameters) == offered
    assert offered or name == "Live2DiffLoadSampleModel", "a node without inputs"
    optional = {p.name for p in parameters.values() if p.default is not p.empty}
    assert optional == {entry.id for entry in schema.inputs if entry.optional}


@pytest.mark.parametrize("name", NODES)
def test_every_node_has_a_help_page_for_all_inputs(classes, name):
    page = (ROOT / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
    schema = classes[name].GET_SCHEMA()
    assert page.startswith(f"# {schema.display_name}\n")
    for entry in [*schema.inputs, *schema.outputs]:
        label = getattr(entry, "display_name", None) or entry.id
        assert f"**{entry.id}**" in page or f"**{label}**" in page, entry.id


def test_settings_show_the_memory_they_need(pack):
    from importlib import import_module

    table = import_module("comfyui_live2diff.nodes.motion").memory_table(settings_node())
    assert "512 x 512: 1.52 GB" in table
