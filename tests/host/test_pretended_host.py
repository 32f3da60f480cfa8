"""ComfyUI's UNet with our memories on a pretended CUDA device: no weight is ever computed."""

import comfy.model_management
import comfy.utils
import pytest
import torch
from host_stream import SIZE, Stream, core, prompt, random
from pretended_cuda import CUDA, PretendedCuda
from steady_streams import MEMORIES, small_motion, small_sd15

FILLING = 5
COUNT = FILLING + 2
PLENTY = 64 * 1024**3


@pytest.fixture(autouse=True)
def pretended(pack, monkeypatch):
    """Within the pretence; the memory manager loads everything and asks no driver."""
    management = comfy.model_management
    monkeypatch.setattr(management, "load_models_gpu", _load)
    monkeypatch.setattr(management, "get_total_memory", lambda *_, **__: PLENTY)
    monkeypatch.setattr(management, "get_free_memory", _free_memory)
    # Its numbers are read once when a stream starts, which a pretended model does not have.
    schedule = core("stream.schedule")
    levels = schedule.ConsistencySchedule.few_step(schedule.linear_beta_alphas_cumprod(), 4, 0.5)
    monkeypatch.setattr(core("host.sd15"), "host_schedule", lambda *_: levels)
    core("stream.transfer")  # Imported, so that it can pretend.
    with PretendedCuda() as pretended:
        yield pretended


def _load(patchers, *_, **__):
    """Put what a fully loaded model has onto the device."""
    for patcher in patchers:
        for name, value in patcher.object_patches.items():
            comfy.utils.set_attr(patcher.model, name, value)
        for module in patcher.model.modules():
            module._buffers |= {name: b.to(CUDA) for name, b in module._buffers.items()}


def _free_memory(dev=None, torch_free_too=False):
    return (PLENTY, PLENTY) if torch_free_too else PLENTY


def waits_of(pretended, memory, **settings):
    """Push frames; what the last of them waited for."""
    put, with_depth, _ = MEMORIES[memory]
    model = put(small_sd15(CUDA), small_motion(CUDA))
    latents = random(COUNT, 4, *SIZE).to(CUDA)
    out = []
    with Stream(model, SIZE, COUNT, depth=with_depth, **settings) as stream:
        for index, latent in enumerate(latents):
            if index == FILLING:
                pretended.waits.clear()
            out += stream.session.push(latent, latent if with_depth else None)
        waits = list(pretended.waits)
        out += stream.session.drain()
    assert len(out) == COUNT and all(x0.device == CUDA for x0 in out)
    return waits


@pytest.mark.parametrize("memory", ["none", "causal_warmup-depth", "merge-1", "queue-1", "both"])
def test_memory(pretended, memory):
    assert waits_of(pretended, memory) == []


@pytest.mark.parametrize("guidance", ["full", "initialize"])
def test_guidance(pretended, guidance):
    assert waits_of(pretended, "causal_warmup", guidance=guidance, cfg=1.6) == []


def test_masks_by_frame(pretended):
    masks = torch.rand(COUNT, 64, 80)
    positive = prompt(mask=masks, mask_strength=1.0, set_area_to_bounds=False)
    assert waits_of(pretended, "causal_warmup", positive=positive) == []
