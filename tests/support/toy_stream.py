"""A toy model with one temporal attention, and what a stream of it must come to."""

import torch
from einops import rearrange
from fed_session import FedSession
from figure1 import direct_attention, translate

from live2diff_core.depth.ranges import normalise_running
from live2diff_core.live2diff.attention import PositionTables, windowed_attention
from live2diff_core.live2diff.memory import MotionMemory
from live2diff_core.live2diff.stream_caches import AttentionSize
from live2diff_core.stream.call_plan import OpenedShape, Pass
from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.schedule import ConsistencySchedule, linear_beta_alphas_cumprod
from live2diff_core.stream.session import StreamSession

CHANNELS, HEADS, POSITIONS = 4, 2, 24
SIZE = (2, 3)


def schedule(steps):
    return ConsistencySchedule.few_step(linear_beta_alphas_cumprod(), steps, 1.0)


def frames(count, seed=0):
    """[F, C, h, w] latents."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, CHANNELS, *SIZE, generator=generator)


def motion_memory(config, steps, attentions=1):
    """The memory of a ToyModel's stream; T by kind of conditioning, 0 where it is not named."""
    kinds = {"positive": 0, "negative": 0, **steps}
    return MotionMemory(config, kinds, _attentions(attentions))


def _attentions(count):
    return [AttentionSize(f"attention {index}", 0, HEADS, CHANNELS) for index in range(count)]


def open_motion(memory, models):
    """Allocate the caches of the models' attentions, for both kinds of conditionings."""
    names, table = (("positive.0", SIZE), ("negative.0", SIZE)), models[0].table
    memory.open(
        OpenedShape(names, table.device, table.dtype),
        lambda: PositionTables.join([model.tables() for model in models], HEADS),
    )


class ToyModel:
    """x0 = 0.5 x + 0.5 attention(x + depth). Keeps the plans it saw; fails on demand.

    Depth latents are depth features here.
    """

    encode_depth = staticmethod(lambda depth: depth)
    # Its pass, and its attention's place among all.
    place, index = Pass(0, 0), 0

    def __init__(self, seed=0, timelines=()):
        self.timelines = tuple(timelines)
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape):
            return torch.randn(*shape, generator=generator)

        # Small enough that rounding is not amplified over the steps.
        self.projections = [weights(CHANNELS, CHANNELS) * 0.3 for _ in range(3)]
        self.table = weights(POSITIONS, CHANNELS)
        self.plans = []
        self.fail_at = None

    def __call__(self, x, plan):
        self.plans.append(plan)
        hidden = x if plan.depth is None else x + plan.depth
        if plan.memory is not None:
            hidden = self._attend(hidden, plan.memory)
        if self.fail_at == len(self.plans):
            raise InterruptedError("stopped by the user")
        return 0.5 * x + 0.5 * hidden

    def _attend(self, x, call):
        tokens = rearrange(x, "n c h w -> n (h w) c")
        sizes = {"q": call.view.query_positions.shape[1], "heads": HEADS}
        query, key, value = (
            rearrange(tokens @ p.T, "(r q) hw (heads d) -> r heads hw q d", **sizes)
            for p in self.projections
        )
        cache = call.caches.at(self.place, self.index, key.shape[2])
        keys, values = cache.update(key, value, call.view.steps, call.view.slots)
        out = windowed_attention(
            query, keys, values, call.positions[self.index], call.view.hidden, call.view.limits
        )
        return rearrange(out, "r heads (h w) q d -> (r q) (heads d) h w", h=x.shape[2])

    def open_memory(self, memory):
        open_motion(memory, [self])

    def tables(self):
        return [self.table @ p.T for p in self.projections]

    def whole_sequence(self, x, depth, config):
        """Run all F frames of a clip at once, attending directly; [F, C, h, w]."""
        hidden = x if depth is None else x + depth
        if config is not None:
            tokens = hidden.flatten(2).transpose(1, 2)
            projections = [lambda t, p=p: t @ p.T for p in self.projections]
            out = direct_attention(tokens, projections, self.table, HEADS, config)
            hidden = out.transpose(1, 2).reshape(x.shape)
        return 0.5 * x + 0.5 * hidden


def expected(model, latents, depth, steps, config, seed=7):
    """What `stream` must give for the whole clip."""
    return translate(
        latents,
        schedule(steps),
        FrameNoise(seed),
        lambda x, step: model.whole_sequence(x, depth, config),
    )


def session(model, steps, config, seed=7):
    """Open a stream of `model`; config None streams without memory."""
    memory = None if config is None else motion_memory(config, {"positive": steps})
    return FedSession(StreamSession(schedule(steps), FrameNoise(seed), memory), model)


def stream(model, latents, depth, steps, config, seed=7):
    """Push a clip frame by frame, flush, and stack: [F, C, h, w]."""
    opened = session(model, steps, config, seed)
    return torch.cat([opened.push_all(latents, depth), opened.flush()])


class OpenToy:
    """What a FrameTranslator asks of an OpenStream, around a toy model.

    Args:
        model: a ToyModel.
        coder: with `encode` and `decode`, batches of pictures to latents and back.
        depth: with `infer`, or None.
    """

    device = picture_device = torch.device("cpu")
    half, tile, short = False, 0, False

    def __init__(self, model, coder, depth=None):
        self.model, self.coder, self.depth = model, coder, depth

    @property
    def reads_depth(self):
        return self.depth is not None

    def encode(self, picture):
        return self.coder.encode(picture[None])[0]

    def decode(self, x0):
        picture = self.coder.decode(x0[None])[0]
        return picture, picture.isfinite().all()

    def decode_again(self, x0):
        return None

    def depth_picture(self, picture, depth_range):
        raw, depth_range = normalise_running(self.depth.infer(picture[None]), depth_range)
        return raw[0, ..., None].repeat(1, 1, 3), depth_range
