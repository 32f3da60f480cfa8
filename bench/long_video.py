"""Count what long videos cost, and measure a UNet call at full size with random weights.

Networks of the released shapes; FLOP are two for each multiplication and addition. VAE and encoders
are left out. Counting takes no memory; the measured call takes 4.2 GB in half precision.

    COMFYUI_PATH=/path/to/ComfyUI python bench/long_video.py [--measure] [--size 256] [--dtype ...]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# ComfyUI comes first, because its `nodes.py` and this checkout's `nodes/` share a name.
sys.path[:1] = [os.environ["COMFYUI_PATH"], str(ROOT)]

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from devtools.standin_t2v import RELEASED  # noqa: E402
from live2diff_core.streamingt2v.denoiser import Denoiser  # noqa: E402
from live2diff_core.streamingt2v.enhancer_file import EnhancerUNet  # noqa: E402

RATE, ROWS = 8, 2
CHUNK, MADE, STEPS = 16, 8, 50
ENHANCED, STRIDE, ENHANCER_STEPS = 24, 16, 30
EMBEDDING, CONTEXT, TOKENS = 1024, 1024, 77


def long_video_call(network: Denoiser, size: int) -> Callable[[], object]:
    """Prepare a call for a chunk of `size` x `size`: two rows, with memory and anchor."""
    like = {"device": network.weights_device}
    text = torch.randn(ROWS, TOKENS, CONTEXT, **like)
    anchor = torch.randn(ROWS, EMBEDDING, **like)
    pictures = torch.rand(MADE, 3, size, size, **like) * 2 - 1
    latents = torch.randn(1, 4, CHUNK, size // 8, size // 8, **like)
    condition = network.condition(text, anchor, pictures)
    return lambda: network(latents, torch.tensor(500, **like), condition)


def enhancer_call(network: EnhancerUNet, width: int, height: int) -> Callable[[], object]:
    """Prepare a call for a chunk of `width` x `height`: two rows."""
    like = {"device": network.unet.conv_in.weight.device}
    text = torch.randn(ROWS, TOKENS, CONTEXT, **like)
    latents = torch.randn(ROWS, 4, ENHANCED, height // 8, width // 8, **like)
    return lambda: network(latents, torch.tensor(500, **like), text)


@torch.inference_mode()
def flop(call: Callable[[], object]) -> int:
    """Count the FLOP of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def filled(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give a network on the meta device random weights on the CPU."""
    network = network.to(dtype).to_empty(device="cpu").eval().requires_grad_(False)
    for tensor in network.parameters():
        tensor.uniform_(-0.02, 0.02)
    return network


def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure a call of long videos, too")
    parser.add_argument("--size", type=int, default=256, help="of the measured call")
    parser.add_argument("--dtype", default="bfloat16", help="of the measured call")
    arguments = parser.parse_args()
    with torch.device("meta"):
        denoiser, enhancer = Denoiser(*RELEASED), EnhancerUNet(RELEASED[0])
    for name, call, steps, frames in (
        ("long video, 256x256", long_video_call(denoiser, 256), STEPS, MADE),
        ("enhancer, 1280x720", enhancer_call(enhancer, 1280, 720), ENHANCER_STEPS, STRIDE),
    ):
        once = flop(call) / 1e12
        second = once * steps * RATE / frames
        print(f"{name}: {once:.1f} TFLOP a call, {second:,.0f} TFLOP a second of video")
    if arguments.measure:
        measure(denoiser, arguments.size, getattr(torch, arguments.dtype))


@torch.inference_mode()
def measure(denoiser: Denoiser, size: int, dtype: torch.dtype) -> None:
    """Time a call of long videos on the CPU."""
    cost = flop(long_video_call(denoiser, size)) / 1e12
    network = filled(denoiser, dtype)
    gigabytes = sum(t.numel() * t.element_size() for t in network.parameters()) / 1e9
    call = long_video_call(network, size)
    start, busy = time.perf_counter(), time.process_time()
    call()
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    print(
        f"a call at {size}x{size}, {dtype}, {torch.get_num_threads()} threads: {seconds:.1f} s, "
        f"{busy:.1f} s of CPU time, for {cost:.1f} TFLOP; {gigabytes:.1f} GB of weights"
    )


if __name__ == "__main__":
    main()
