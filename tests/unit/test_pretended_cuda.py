"""The engine on a pretended CUDA device: nothing is read back, mixed or waited for."""

import pytest
import torch
from pretended_cuda import CUDA, PretendedCuda
from toy_stream import SIZE, OpenToy, ToyModel, frames, motion_memory, schedule

from live2diff_core.depth.ranges import MODES, RunningRange, normalise, normalise_running
from live2diff_core.live2diff.window import AttentionWindow
from live2diff_core.run.translator import FrameTranslator
from live2diff_core.stream.guidance import Guidance
from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.session import StreamSession
from live2diff_core.stream.similar_frames import SimilarFrameFilter, SkipRule

COUNT = 10
WINDOWS = {
    "no memory": None,
    "causal_warmup": AttentionWindow(4, 2, "causal_warmup"),
    "causal": AttentionWindow(4, 0, "causal"),
    "sliding": AttentionWindow(4, 0, "sliding"),
    "bidirectional": AttentionWindow(4, 0, "bidirectional"),
}


class CudaToy(ToyModel):
    """The toy model with its weights on the pretended device."""

    def __init__(self):
        super().__init__()
        self.projections = [projection.to(CUDA) for projection in self.projections]
        self.table = self.table.to(CUDA)

    def negative(self, x, plan):
        return 0.9 * x


def start(steps, window, guidance):
    memory = None if window is None else motion_memory(window, {"positive": steps})
    return StreamSession(schedule(steps), FrameNoise(7), memory, guidance)


def on_cuda(count, seed=0):
    return frames(count, seed).to(CUDA)


def run(steps, window, guidance=None, depth=False):
    """Push and drain a stream; what waited from the third frame behind the warm-up on."""
    session = start(steps, window, guidance)
    with PretendedCuda() as pretended:
        model = CudaToy()
        session.open(model)
        latents = on_cuda(COUNT)
        hints = on_cuda(COUNT, 1) if depth else [None] * COUNT
        out = []
        for index, pair in enumerate(zip(latents, hints, strict=True)):
            if index == 4:
                pretended.waits.clear()
            out += session.push(model, *pair)
        out += session.drain(model)
    assert len(out) == COUNT
    assert all(x0.device == CUDA and x0.shape == latents[0].shape for x0 in out)
    return pretended.waits


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("window", WINDOWS)
def test_memory(window, steps):
    assert run(steps, WINDOWS[window], depth=True) == []


@pytest.mark.parametrize("mode", ["none", "full", "self", "initialize"])
def test_guidance(mode):
    assert run(3, WINDOWS["causal_warmup"], Guidance(1.6, mode, 0.8)) == []


@pytest.mark.parametrize("mode", MODES)
def test_depth_ranges_of_a_clip(mode):
    with PretendedCuda():
        depth = normalise(torch.rand(COUNT, *SIZE, device=CUDA), mode)
    assert depth.device == CUDA and depth.shape == (COUNT, *SIZE)


def test_running_depth_range():
    with PretendedCuda() as pretended:
        state = RunningRange()
        for raw in torch.rand(COUNT, 1, *SIZE, device=CUDA):
            depth, state = normalise_running(raw, state)
    assert depth.device == CUDA and pretended.waits == []


class Coder:
    """A VAE that only changes the number of channels."""

    @staticmethod
    def encode(pictures):
        return torch.cat([pictures, pictures[..., :1]], dim=-1).movedim(-1, 1).to(CUDA)

    @staticmethod
    def decode(latents):
        return latents[:, :3].movedim(1, -1)


class Depth:
    """A depth model's inference."""

    @staticmethod
    def infer(pictures):
        return pictures.mean(-1).to(CUDA)


@pytest.mark.parametrize("rule", [None, SkipRule(1.0)], ids=str)
def test_pictures_with_depth(rule):
    """A filter that skips nothing looks at nothing."""
    session = start(2, WINDOWS["causal_warmup"], None)
    with PretendedCuda() as pretended:
        translator = FrameTranslator(session, SimilarFrameFilter(0, rule))
        opened = OpenToy(CudaToy(), Coder, Depth)
        opened.device = opened.picture_device = CUDA
        translator.open(opened)
        out = []
        for index, picture in enumerate(torch.rand(COUNT, *SIZE, 3)):
            if index == 4:
                pretended.waits.clear()
            out += translator.push(opened, picture)
    assert len(out) == COUNT - 1 and pretended.waits == []


def test_the_pretence_notices():
    """What it is for: numbers that are read, devices that are mixed, copies that are waited for."""
    with PretendedCuda() as pretended:
        x = torch.rand(4, 3, device=CUDA)
        for read in (torch.Tensor.tolist, torch.Tensor.numpy, lambda t: t[0, 0].item()):
            with pytest.raises(Exception, match="numpy|tolist|_local_scalar_dense"):
                read(x)
        with pytest.raises(Exception, match="nonzero"):
            x[x > 0.5]
        with pytest.raises(RuntimeError, match="devices"):
            x + torch.ones(4, 3)
        assert pretended.waits == []
        torch.ones(2).to(CUDA, non_blocking=True)
        torch.ones(2).pin_memory().to(CUDA, non_blocking=True)
        x[torch.arange(2, device=CUDA)]
        assert pretended.waits == []
        x.cpu()
        torch.ones(2).to(CUDA)
        x[[0, 1]]
        torch.empty(4, 3).copy_(x)
    assert len(pretended.waits) == 4
    assert "test_pretended_cuda.py" in pretended.waits[0]
