"""A small VAE and the live nodes with usual inputs, for tests inside ComfyUI's process."""

import comfy.model_patcher
import torch
from host_stream import core, node, prompt

HEIGHT, WIDTH = 64, 80


class TinyCoder(torch.nn.Module):
    """8x8 pixels to one latent pixel and back, at random."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.device = torch.device("cpu")
        self.down = torch.nn.Parameter(torch.randn(4, 3, 8, 8, generator=generator) * 0.3)
        self.up = torch.nn.Parameter(torch.randn(4, 3, 8, 8, generator=generator) * 0.1)

    def encode(self, pixels):
        return torch.nn.functional.conv2d(pixels, self.down, stride=8)

    def decode(self, latents):
        return torch.nn.functional.conv_transpose2d(latents, self.up, stride=8)


class TinyVAE:
    """What FrameVAE uses of ComfyUI's VAE."""

    latent_dim, latent_channels = 2, 4
    vae_dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self):
        self.first_stage_model = TinyCoder()
        self.patcher = comfy.model_patcher.CoreModelPatcher(
            self.first_stage_model, load_device=self.device, offload_device=self.device
        )
        self.memory_used_encode = self.memory_used_decode = lambda shape, dtype: 1000
        self.process_input = lambda image: image * 2.0 - 1.0
        self.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)


class TinyDepth:
    """What a stream uses of a DepthModel."""

    working_bytes = 1000
    half = False

    def __init__(self):
        self.patcher = TinyVAE().patcher

    def infer(self, images, exact=False):
        return images.mean(dim=3) * 7 + 1


def pictures(count, size=(HEIGHT, WIDTH), seed=0):
    """[F, H, W, 3] in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *size, 3, generator=generator)


@torch.inference_mode()
def step(images, model, vae, **changes):
    """Run Stream Step once: (pictures, frame index, warming up)."""
    inputs = {
        "positive": prompt(),
        "negative": prompt(1),
        "stream": "live",
        "seed": 3,
        "steps": 4,
        "denoise": 0.5,
        "cfg": 1.0,
        "during_warmup": "pass through",
        "on_prompt_change": "keep cache",
        "finish": False,
        "max_idle_minutes": 30,
        "max_total_gb": 8.0,
        **changes,
    }
    return node("live", "Live2DiffStreamStep").execute(images, model=model, vae=vae, **inputs).args


def stream(images, model, vae, cuts=None, **changes):
    """Feed frames in pieces of the sizes `cuts` and finish: [F, H, W, 3]."""
    pieces = images.split(cuts or [1] * len(images))
    done = []
    for index, piece in enumerate(pieces):
        result, first, _ = step(piece, model, vae, finish=index == len(pieces) - 1, **changes)
        if first >= 0:
            assert first == sum(map(len, done))
            done.append(result)
    return torch.cat(done)


@torch.inference_mode()
def sampled(images, model, vae, depth=None, **changes):
    """The same frames through the Stream Sampler, encoded and decoded one by one."""
    coder = core("host.vae").FrameVAE(vae)
    encode = lambda frames: torch.cat([coder.encode(f[None]) for f in frames])  # noqa: E731
    inputs = {"seed": 3, "steps": 4, "denoise": 0.5, "cfg": 1.0, **changes}
    samples = node("sampler", "Live2DiffStreamSampler").execute(
        {"samples": encode(images)},
        model=model,
        positive=inputs.pop("positive", prompt()),
        negative=prompt(1),
        depth=None if depth is None else {"samples": encode(depth)},
        **inputs,
    )
    return torch.cat([coder.decode(latent[None])[0] for latent in samples.args[0]["samples"]])


def save(name="live", file="live"):
    """Run Save Stream."""
    return node("live_files", "Live2DiffSaveStream").execute(name, file).args[0]


def load(name="live", file="live", when="once", folder="output"):
    """Run Load Stream."""
    loader = node("live_files", "Live2DiffLoadStream")
    return loader.execute(f"{file}.safetensors [{folder}]", name, when).args[0]


def reset(name="live", on=True, after=None):
    """Run Reset Stream."""
    return node("live_streams", "Live2DiffResetStream").execute(name, on, after).args[0]
