"""One description of a stream: every node makes it alike, opens it alike and names it alike."""

import comfy.model_management
import pytest
import torch
from host_stream import core, frames, node, patched, prompt
from live_stream_inputs import TinyDepth, TinyVAE, pictures, step
from stream_video import block_clip, translate_video

pytestmark = pytest.mark.usefixtures("folders", "streams")
INPUTS = {"seed": 9, "steps": 4, "denoise": 0.75, "cfg": 1.5}


@pytest.fixture
def specs(monkeypatch):
    """Descriptions that nodes make."""
    made, spec = [], core("run.spec").StreamSpec
    usual = spec.from_inputs.__func__

    def note(cls, *args, **inputs):
        made.append(usual(cls, *args, **inputs))
        return made[-1]

    monkeypatch.setattr(spec, "from_inputs", classmethod(note))
    return made


def more():
    options = node("options", "Live2DiffStreamOptions")
    return {
        **INPUTS,
        "options": options.execute("self", 0.7, "same for all frames", "x0").args[0],
        "frame_filter": node("options", "Live2DiffSimilarFrameFilter").execute(0.9, 3).args[0],
        "positive": prompt(2),
        "negative": prompt(3),
    }


def run_all(model, clip, specs, depth=None):
    """Run the three stream nodes with the same inputs; their descriptions."""
    inputs, vae = more(), TinyVAE()
    latents = {"samples": frames(3)}
    hints = None if depth is None else {"samples": frames(3, seed=1)}
    sampler = node("sampler", "Live2DiffStreamSampler")
    with torch.inference_mode():
        sampler.execute(model=model, frames=latents, depth=hints, **inputs)
    translate_video(clip, model, vae, depth_model=depth, **inputs)
    step(pictures(3, (64, 64)), model, vae, depth_model=depth, **inputs)
    return specs


def test_all_nodes_describe_the_same_stream(sd15, motion, tmp_path, specs):
    model = patched(sd15, motion, 3, 2)
    sampler, video, live = run_all(model, block_clip(tmp_path, range(3)), specs)
    assert sampler.identity() == video.identity() == live.identity()
    assert video.content_identity() == live.content_identity()
    for spec in (sampler, video, live):
        assert len(spec.schedule) == 3 and spec.shared_noise and spec.skip_rule.most_skipped == 3


def test_depth_latents_are_named_too(sd15, motion, tmp_path, specs):
    """Where depth comes from is all that differs."""
    model = patched(sd15, motion, 3, 2)
    made = run_all(model, block_clip(tmp_path, range(3)), specs, TinyDepth())
    sampler, video, live = (spec.identity() for spec in made)
    assert sampler.pop("depth") == "latents"
    assert video.pop("depth") == live.pop("depth") != "no"
    assert sampler == video == live


def test_models_that_work_in_turn_share_their_working_memory(sd15, motion):
    """VAE, depth and UNet run one after another: the largest of them counts, not their sum."""
    model = patched(sd15, motion, 3, 2)
    schedule = core("host.sd15").host_schedule(model, 4, 0.5)
    depth, guidance = TinyDepth(), core("stream.guidance").Guidance()
    depth.working_bytes = 5000
    spec = core("run.spec").StreamSpec(
        model, prompt(), prompt(1), schedule, guidance, 3, vae=TinyVAE(), depth_model=depth
    )
    opened = spec.open((8, 10), None)
    assert opened.model._companion_bytes == 5000
    depth.working_bytes = 10
    assert spec.open((8, 10), None).model._companion_bytes == 1000


def test_every_node_loads_depth_in_one_go_with_the_unet(sd15, motion, tmp_path, specs, monkeypatch):
    """Loaded later, it could push the UNet out again."""
    loads, depth, management = [], TinyDepth(), comfy.model_management
    usual = management.load_models_gpu

    def note(models, *args, **options):
        loads.append([m.model for m in models])
        return usual(models, *args, **options)

    monkeypatch.setattr(management, "load_models_gpu", note)
    run_all(patched(sd15, motion, 3, 2), block_clip(tmp_path, range(3)), specs, depth)
    with_depth = [models for models in loads if depth.patcher.model in models]
    assert len(with_depth) == 2  # the Stream Sampler gets depth as latents
    assert all(sd15.model in models for models in with_depth)


@pytest.mark.parametrize("depth", [{"depth_model": TinyDepth()}, {"depth_latents": True}])
def test_a_model_without_a_depth_encoder_is_refused_at_once(sd15, depth):
    """Before a stream is opened, let alone a model loaded."""
    schedule = core("host.sd15").host_schedule(sd15, 4, 0.5)
    guidance = core("stream.guidance").Guidance()
    with pytest.raises(ValueError, match="depth is connected, but this MODEL cannot read it"):
        core("run.spec").StreamSpec(sd15, prompt(), prompt(1), schedule, guidance, 3, **depth)


def test_the_sampler_refuses_depth_before_anything_is_loaded(sd15, monkeypatch):
    monkeypatch.setattr(core("host.model").HostModel, "__enter__", lambda self: pytest.fail())
    inputs = {**INPUTS, "positive": prompt(2), "negative": prompt(3)}
    latents, depth = ({"samples": frames(3, seed=seed)} for seed in (0, 1))
    with pytest.raises(ValueError, match="depth is connected, but this MODEL cannot read it"):
        node("sampler", "Live2DiffStreamSampler").execute(
            model=sd15, frames=latents, depth=depth, **inputs
        )
