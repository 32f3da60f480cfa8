"""In a stream, depth runs on its device in full, however short its memory is."""

import comfy.model_management
import pytest
import torch
from host_stream import core, patched, relative_error
from live_stream_inputs import pictures, stream
from pretended_device import AWAY, Away
from pretended_host import CPU, KEPT_FREE, PretendedHost

pytestmark = pytest.mark.usefixtures("streams")
COUNT = 4


class Part(torch.nn.Module):
    """Layers that are not the host's: a weight, and a buffer in a module of its own."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.full((384,), 1.5))
        self.scale = torch.nn.Module()
        self.scale.register_buffer("factor", torch.full((384,), 0.5))

    def forward(self, frames):
        return frames.mean(dim=1).add(1.0) * self.weight * self.scale.factor


class Network(torch.nn.Module):
    """In place of DPT; some of its weights belong to no leaf, as timm's class token does."""

    def __init__(self):
        super().__init__()
        self.part = Part()
        self.token = torch.nn.Parameter(torch.full((384,), 0.25))
        self.pretrained = type("Activations", (), {"activations": {}})()

    def forward(self, frames):
        return self.part(frames) + self.token


def tensors(module):
    return [*module.parameters(), *module.buffers()]


@pytest.fixture
def made(sd15, motion, vae):
    """A MODEL and a VAE, and what they make of some frames with depth on the CPU."""
    model = patched(sd15, motion, 4, 2)
    depth = core("depth.model").DepthModel(Network())
    return model, vae, stream(pictures(COUNT), model, vae, depth_model=depth)


@pytest.mark.parametrize("free", [KEPT_FREE + 2000, 0], ids=["little memory", "no memory"])
@pytest.mark.parametrize("low", [False, True], ids=["normal", "novram"])
def test_depth_is_loaded_in_full_beside_the_unet(monkeypatch, made, low, free):
    model, vae, expected = made
    with PretendedHost(monkeypatch, low) as host:
        host.place(model)
        depth = core("depth.model").DepthModel(Network())
        network, infer = depth.patcher.model, depth.infer

        def check(images):
            assert all(isinstance(tensor, Away) for tensor in tensors(network))
            assert depth.patcher.loaded_size() == depth.patcher.model_size()
            return infer(images)

        monkeypatch.setattr(depth, "infer", check)
        host.free = free
        found = stream(pictures(COUNT), model, vae, depth_model=depth)
        # Short of memory, the host computes attention in smaller pieces.
        assert relative_error(found, expected) < 1e-3
        # The host may have it back afterwards.
        host.free = 0
        comfy.model_management.free_memory(1e30, AWAY)
        assert all(tensor.device == CPU for tensor in tensors(network))
        assert depth.patcher.loaded_size() == 0
