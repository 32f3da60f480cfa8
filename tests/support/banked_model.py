"""A toy model with one self-attention that has a feature bank, and streams of it."""

import pytest
import torch
import toy_stream as toy
from fed_session import FedSession

from live2diff_core.feature_bank.bank import BankConfig, BankedLayer
from live2diff_core.feature_bank.call import attend_with_banks
from live2diff_core.feature_bank.memory import BankMemory
from live2diff_core.live2diff.window import AttentionWindow
from live2diff_core.stream.call_plan import OpenedShape, Pass
from live2diff_core.stream.memory import MemorySet
from live2diff_core.stream.noise import FrameNoise, TokenPermutation
from live2diff_core.stream.session import StreamSession

SEED = 7
USE = {"fusion_strength": 0.7, "similarity_threshold": 0.6}
CONFIGS = {
    "merge": BankConfig(interval=2, **USE),
    "merge, every frame": BankConfig(interval=1, **USE),
    "queue": BankConfig("queue", 3, interval=2, **USE),
    "not fused": BankConfig(interval=3, fuse=()),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
LAYER, NAME = "middle.0.0", "bank"


def bank_memory(config, steps, permutation):
    """The memory of a BankedModel's stream; T of the conditioning."""
    layer = BankedLayer(LAYER, 0, toy.CHANNELS, bool(config.fuse))
    return BankMemory(config, permutation, [layer], {"positive": steps})


class BankedModel:
    """x0 = 0.5 x + 0.5 attention(x + shift), averaged over conditionings, which shift apart.

    One head. Fails on demand, after it has written the bank.
    """

    def __init__(self, conditionings=1):
        generator = torch.Generator().manual_seed(0)
        shape = (3, toy.CHANNELS, toy.CHANNELS)
        self.projections = list(torch.randn(shape, generator=generator) * 0.5)
        self.passes = [Pass(number, 0) for number in range(conditionings)]
        self.plans = []
        self.fail_at = None

    def qkv(self, x, number):
        tokens = x.flatten(-2).transpose(-1, -2) + number
        return [tokens @ projection.T for projection in self.projections]

    def open_memory(self, memory):
        names = tuple((f"positive.{place.conditioning}", toy.SIZE) for place in self.passes)
        shape = OpenedShape(names, torch.device("cpu"), torch.float32)
        memory[NAME].open(shape)
        if (motion := memory._memories.get("motion")) is not None:
            toy.open_motion(motion, [toy.ToyModel()])

    def attend(self, query, keys, values):
        return (query @ keys.transpose(1, 2) * toy.CHANNELS**-0.5).softmax(-1) @ values

    def mean(self, x, out):
        """[B, N, tokens, C] attended to x0 [N, C, h, w]."""
        return 0.5 * x + 0.5 * out.mean(0).transpose(-1, -2).reshape(x.shape)

    def __call__(self, x, plan):
        self.plans.append(plan)
        call = plan.memory[NAME]
        parts = [self.qkv(x, number) for number in range(len(self.passes))]
        query, key, value = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        meetings = call.update(0, self.passes, key, value)
        out = call.fuse(0, attend_with_banks(query, key, value, meetings, self.attend))
        if self.fail_at == len(self.plans):
            raise InterruptedError("stopped by the user")
        return self.mean(x, out.view(len(self.passes), len(x), *out.shape[1:]))


def permutation(frame, step, layer, count):
    return TokenPermutation(SEED)(frame, step, layer, count)


def session(model, steps, config, warmup=0):
    """Open a stream; with a warm-up, beside a memory that asks for groups."""
    memories = {NAME: bank_memory(config, steps, permutation)}
    if warmup:
        window = AttentionWindow(warmup + 2, warmup)
        memories["motion"] = toy.motion_memory(window, {"positive": steps})
    stream = StreamSession(toy.schedule(steps), FrameNoise(SEED), MemorySet(memories))
    return FedSession(stream, model)
