"""Streams through ComfyUI's own UNet, small and short, for tests that run inside its process."""

import importlib

import figure1
import torch
from fed_session import FedSession

PACK = "comfyui_live2diff"
PROMPT_WIDTH = 32
# The deepest level must have more than one pixel: with one, GroupNorm sees two values per group and
# blows rounding up a thousandfold.
SIZE = (8, 10)


def core(name):
    """An engine module as the loaded pack sees it."""
    return importlib.import_module(f"{PACK}.live2diff_core.{name}")


def node(module, name):
    """A node class, locked as ComfyUI does it before each run."""
    return getattr(importlib.import_module(f"{PACK}.nodes.{module}"), name).PREPARE_CLASS_CLONE(
        None
    )


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prompt(seed=0, **more):
    """A conditioning as a text encoder makes it, strong enough to matter to random weights."""
    return [[random(1, 77, PROMPT_WIDTH, seed=100 + seed) * 10, more]]


def frames(count, size=SIZE, seed=0):
    """[F, 4, h, w] latents."""
    return random(count, 4, *size, seed=seed)


def patched(model, motion, window=16, warmup=8, mode="causal_warmup"):
    """Apply Live2Diff to a ModelPatcher."""
    config = core("live2diff.window").AttentionWindow(window, warmup, mode)
    return core("live2diff.patch").apply_live2diff(model, motion, config)


def computing_in(exact, stored, computed=None):
    """A copy of a ModelPatcher whose weights are rounded to the type `stored`."""
    config = type(exact.model.model_config)(exact.model.model_config.unet_config)
    config.set_inference_dtype(stored, computed)
    model = config.get_model({}, "")
    model.load_state_dict(exact.model.state_dict(), strict=False)
    cpu = torch.device("cpu")
    return type(exact)(model, load_device=cpu, offload_device=cpu)


class Stream:
    """A HostModel with a session on it; close with `with`."""

    def __init__(
        self,
        model,
        size,
        count,
        steps=2,
        positive=None,
        negative=None,
        cfg=1.0,
        seed=3,
        depth=False,
        guidance="full",
        delta=1.0,
    ):
        """Open for `count` frames of latents `size`, at T = `steps` of LCM's 4 (8 above that)."""
        positive = prompt() if positive is None else positive
        negative = prompt(1) if negative is None else negative
        total = 4 if steps <= 4 else 8
        self.schedule = core("host.sd15").host_schedule(model, total, steps / total)
        self.guidance = core("stream.guidance").Guidance(cfg, guidance, delta)
        self.spec = core("run.spec").StreamSpec(
            model, positive, negative, self.schedule, self.guidance, seed
        )
        self.host = self.spec.open(size, count).model
        self.seed, self.depth = seed, depth

    def __enter__(self):
        self.host.__enter__()
        self.noise = core("stream.noise").FrameNoise(self.seed)
        self.session = FedSession(self.spec.start(), self.host)
        return self

    def __exit__(self, *error):
        self.host.__exit__(*error)

    def run(self, latents, depth=None):
        return torch.cat([self.session.push_all(latents, depth), self.session.flush()])


@torch.inference_mode()
def translate(model, latents, depth=None, **settings):
    """Stream a clip: [F, 4, h, w] to the same."""
    with Stream(
        model, tuple(latents.shape[2:]), len(latents), depth=depth is not None, **settings
    ) as stream:
        return stream.run(latents, depth)


class NoMemory:
    """Stands where a MemoryCall would, for attentions that keep nothing."""

    def select(self, index):
        return self

    def __getitem__(self, name):
        return self


@torch.inference_mode()
def translate_at_once(monkeypatch, model, latents, depth=None, **settings):
    """The same clip with nothing streamed, cached or pipelined.

    All frames go through the UNet in one batch, step by step; the temporal attentions attend over
    the whole sequence under figure 1's mask, with positions added to their inputs.
    """
    config = core("stream.memory").applied_memories(model)["live2diff"].window
    call_plan = core("stream.call_plan")

    def attend(self, x, step, conditionings):
        table = self.pos_encoder.pe[0]
        sequences = x.chunk(len(conditionings))
        heads = core("live2diff.motion_module").HEADS
        projections = (self.to_q, self.to_k, self.to_v)
        return self.to_out[0](
            torch.cat(
                [figure1.direct_attention(s, projections, table, heads, config) for s in sequences]
            )
        )

    with (
        Stream(
            model, tuple(latents.shape[2:]), len(latents), depth=depth is not None, **settings
        ) as stream,
        monkeypatch.context() as patch,
    ):
        patch.setattr(core("live2diff.motion_module").TemporalAttention, "forward", attend)
        features = None if depth is None else stream.host.encode_depth(depth)

        def whole_sequence(x, step):
            rows = tuple(call_plan.Row(frame, step) for frame in range(len(x)))
            steps = torch.tensor([step] * len(x))
            return stream.host(x, call_plan.CallPlan(rows, steps, features, NoMemory()))

        return figure1.translate(latents, stream.schedule, stream.noise, whole_sequence)


def relative_error(found, expected):
    """max|found - expected| / max|expected|; NaN and other shapes fail."""
    assert found.shape == expected.shape
    assert found.isfinite().all()
    return ((found - expected).abs().max() / expected.abs().max()).item()
