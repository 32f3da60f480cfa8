"""Whether a stream fits is known beforehand, and every part of it has its figure."""

import comfy.model_management
import pytest
import torch
from host_stream import core, patched, prompt
from live_stream_inputs import TinyDepth, TinyVAE

GB = 10**9
GPU = torch.device("meta")  # not the CPU; nothing is allocated on it


@pytest.fixture
def check(pack, monkeypatch):
    """Check a need, in gigabytes, on a card of so many."""
    module, management = core("host.memory_need"), comfy.model_management
    monkeypatch.setattr(management, "is_device_cpu", lambda device: device.type == "cpu")
    monkeypatch.setattr(management, "extra_reserved_memory", lambda: 0)

    def call(card, **parts):
        monkeypatch.setattr(management, "get_total_memory", lambda *_: int(card * GB))
        module.check_memory(
            module.MemoryNeed(**{name: int(part * GB) for name, part in parts.items()}), GPU
        )

    return call


PARTS = {
    "stream": 3.0,
    "unet_work": 1.5,
    "vae_work": 2.0,
    "depth_work": 1.75,
    "depth_weights": 1.0,
    "unet_weights": 1.25,
    "vae_weights": 1.1,
}


def test_what_fits_beside_all_weights_passes_in_silence(check, caplog):
    check(8.4, **PARTS)
    assert "WARNING" not in [record.levelname for record in caplog.records]


def test_weights_that_wait_in_ram_are_told_of(check, caplog):
    check(8.3, **PARTS)
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert "keeps a part of them in RAM" in record.message


@pytest.mark.parametrize("part", ["stream", "vae_work", "depth_weights"])
def test_every_part_counts_and_has_its_figure(check, part):
    """3.0 + 2.0 + 1.0; the UNet's activations are not there at the same time as the VAE's."""
    check(6.0, **PARTS)
    error = core("host.memory_need").StreamMemoryError
    with pytest.raises(error) as refused:
        check(6.0, **{**PARTS, part: PARTS[part] + 0.1})
    figures = ["needs at least 6.10 GB", "has only 6.00 GB"]
    figures += [f"{PARTS[p] + 0.1 * (p == part):.2f} GB for" for p in ("stream", "depth_weights")]
    work = 2.0 + 0.1 * (part == "vae_work")
    figures += [f"the largest of 1.50 GB (UNet), {work:.2f} GB (VAE) and 1.75 GB (depth)"]
    figures += ["1.25 GB (UNet) and 1.10 GB (VAE) for weights"]
    assert all(figure in str(refused.value) for figure in figures)


def test_the_largest_activations_count(check):
    for part in ("unet_work", "depth_work"):
        check(6.0, **{**PARTS, part: 2.0})
        with pytest.raises(core("host.memory_need").StreamMemoryError):
            check(6.0, **{**PARTS, part: 2.1})


def test_the_node_asks_for_all_parts(sd15, motion, monkeypatch):
    """Of a stream with depth: weights of UNet, motion module, VAE and depth, and activations."""
    asked = []
    monkeypatch.setattr(core("host.model"), "check_memory", lambda need, device: asked.append(need))
    depth, vae = TinyDepth(), TinyVAE()
    model = patched(sd15, motion, 3, 2)
    spec = core("run.spec").StreamSpec(
        model,
        prompt(),
        prompt(1),
        core("host.sd15").host_schedule(model, 4, 0.5),
        core("stream.guidance").Guidance(),
        3,
        vae=vae,
        depth_model=depth,
    )
    with spec.open((8, 10), None) as opened:
        memory = opened.model.memory_bytes
    (need,) = asked
    unet = [sd15, model.get_nested_additional_models()[0]]
    assert need == core("host.memory_need").MemoryNeed(
        memory,
        unet_work=need.unet_work,
        vae_work=1000,
        depth_work=depth.working_bytes,
        depth_weights=depth.patcher.model_size(),
        unet_weights=sum(patcher.model_size() for patcher in unet),
        vae_weights=vae.patcher.model_size(),
    )
    assert memory > 0 and need.unet_work > 0
