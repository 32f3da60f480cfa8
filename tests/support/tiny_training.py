"""A training run that takes seconds: a narrow SD1.5 with random weights on small clips.

As a script it trains the configuration whose JSON file it is given, for tests that kill it.
"""

import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

SIZE = (32, 32)
WIDTH = 32


class TinyClip:
    """What training uses of ComfyUI's CLIP: a text of random numbers for every prompt."""

    def __init__(self, tokens=4):
        self.tokens, self.calls = tokens, 0
        self.cond_stage_model = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.cond_stage_model.weight)
        torch.nn.init.zeros_(self.cond_stage_model.bias)

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        self.calls += 1
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        return [[torch.randn(1, self.tokens, 768, generator=generator), {}]]


def tiny_base(depth=False, dtype=torch.float32, width=WIDTH):
    """A BaseModel 32 channels wide."""
    from live_stream_inputs import TinyDepth, TinyVAE

    from devtools.golden_models import random_sd15
    from training.base_model import BaseModel

    model = random_sd15("cpu", dtype, width)
    _draw(model.model.diffusion_model)
    return BaseModel(model, TinyClip(), TinyVAE(), TinyDepth() if depth else None)


@torch.no_grad()
def _draw(unet):
    """Draw weights that neither shrink nor blow up what passes through."""
    generator = torch.Generator().manual_seed(7)
    for weight in unet.parameters():
        if weight.ndim == 1:
            weight.fill_(0.0)
            continue
        drawn = torch.randn(weight.shape, generator=generator)
        weight.copy_(drawn * weight[0].numel() ** -0.5)
    for module in unet.modules():
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
            module.weight.fill_(1.0)


def write_clip(path, frames=20, seed=0, size=SIZE):
    """A clip of a random picture that moves sideways, without loss."""
    import av

    picture = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=12, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = *size, "rgb24"
        for index in range(frames):
            image = np.ascontiguousarray(np.roll(picture, index, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_clips(folder, count=3, frames=20):
    """Clips with captions, in a folder of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        write_clip(folder / f"clip{index}.mp4", frames, index)
        lines.append(json.dumps({"video": f"clip{index}.mp4", "prompt": f"clip number {index}"}))
    (folder / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def tiny_options(folder, **changes):
    """Options of a run of a few steps, by name."""
    return {
        "checkpoint": "tiny",
        "videos": str(folder / "videos"),
        "output": str(folder / "run"),
        "width": SIZE[0],
        "height": SIZE[1],
        "window_size": 4,
        "warmup_frames": 2,
        "steps": 3,
        "batch_size": 2,
        "effective_batch": 2,
        "gradient_checkpointing": False,
        "learning_rate": 0.001,
        "dtype": "float32",
        "export_dtype": "float32",
        "device": "cpu",
        "threads": 1,
        "save_every": 2,
        "log_every": 1,
        **changes,
    }


def main(path):
    from devtools.golden import import_host

    import_host()
    from training.config_file import make_config
    from training.loop import train

    config = make_config(json.loads(Path(path).read_text(encoding="utf-8")))
    train(config, tiny_base(config.depth), shown=_tell)


def _tell(step, point):
    sys.stdout.write(f"step {step}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
