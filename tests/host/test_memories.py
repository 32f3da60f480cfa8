"""The interface of memories: a fourth one is one class for each side and one patch of the host."""

import ast
import inspect
from dataclasses import dataclass, field
from pathlib import Path

import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import pytest
import torch
from host_bank import COUNT, ROUNDING, banked
from host_stream import SIZE, Stream, core, frames, patched, relative_error, translate

ROOT = Path(__file__).resolve().parents[2]
NAME = "middle_average"


# The stream's side: the middle block's features of the frame before, by conditioning and step.


class AverageMemory:
    def __init__(self):
        self.kept, self.planned = {}, {}

    def group(self, frame):
        return range(frame, frame + 1)

    def open(self, shape):
        self.shape = shape

    def integers(self, groups, steps):
        return []

    def plan(self, groups, steps, integers):
        return AverageStep(self, tuple(zip(steps, groups, strict=True)))

    def commit(self):
        self.kept |= self.planned
        self.planned = {}

    def discard(self):
        self.planned = {}

    def reset(self):
        self.kept, self.planned = {}, {}

    def state_dict(self):
        kept = {f"{name}/{step}": tensor for (name, step), tensor in self.kept.items()}
        return {"version": torch.tensor(1), **kept}

    def load_state_dict(self, state):
        keys = [name.rsplit("/", 1) for name in state if name != "version"]
        self.kept = {(name, int(step)): state[f"{name}/{step}"] for name, step in keys}

    @property
    def nbytes(self):
        return sum(tensor.nbytes for tensor in (*self.kept.values(), *self.planned.values()))


@dataclass(frozen=True)
class AverageStep:
    memory: AverageMemory
    groups: tuple

    def select(self, index):
        return AverageStep(self.memory, (self.groups[index],))

    def settle(self, bad):
        self.memory.planned = {k: kept.nan_to_num() for k, kept in self.memory.planned.items()}

    def average(self, h, passes):
        out, rows = h.clone(), iter(range(len(h)))
        for name in (self.memory.shape.pass_name(*place) for place in passes):
            for step, group in self.groups:
                before = self.memory.kept.get((name, step))
                for _ in group:
                    row = next(rows)
                    if before is not None:
                        out[row] = (h[row] + before.to(h)) / 2
                    before = h[row].clone()
                self.memory.planned[name, step] = before
        return out


# The MODEL's side.


@dataclass(frozen=True)
class AppliedAverage:
    channels: int
    name: str = NAME
    title: str = "Average the Middle"
    largest_group: int = 1
    depth_encoder: None = None
    started: list = field(default_factory=list)

    def start(self, steps, seed):
        self.started.append((dict(steps), seed))
        return AverageMemory()

    def open(self, memory, shape):
        memory.open(shape)

    def nbytes(self, shape):
        pixels = shape.tokens(3)
        return 2 * self.channels * pixels * shape.passes * shape.bytes_per_value

    def check(self, model):
        pass

    def fingerprint(self):
        return {"average": "1/2"}


def averaged(model):
    """What its node would do."""
    context = core("host.call_context")
    out = model.clone()
    core("stream.memory").add_memory(out, AppliedAverage(64))

    def average(args):
        options = args["transformer_options"]
        step = context.call_context(options, "Average the Middle").plan.memory[NAME]
        return {"h": step.average(args["h"], options[context.PASSES])}

    out.set_model_patch(average, "middle_block_after_patch")
    return out


@pytest.fixture(autouse=True)
def host_has_the_patch():
    if "middle_block_after_patch" not in inspect.getsource(host_unet.UNetModel):
        pytest.skip("this ComfyUI has no patch after the middle block")


def apply_all(names, sd15, motion):
    """Put memories on a MODEL, in the order named."""
    put = {
        "average": averaged,
        "bank": banked,
        "motion": lambda model: patched(model, motion, 3, 2),
    }
    for name in names:
        sd15 = put[name](sd15)
    return sd15


ALONE, ALL = ("average",), ("motion", "average", "bank")
every_company = pytest.mark.parametrize("names", [ALONE, ALL], ids=" ".join)


@every_company
def test_it_takes_part_in_a_stream(sd15, motion, names):
    found = translate(apply_all(names, sd15, motion), frames(COUNT), steps=3, cfg=2.0)
    without = apply_all([name for name in names if name != "average"], sd15, motion)
    without = translate(without, frames(COUNT), steps=3, cfg=2.0)
    first = 2 if "motion" in names else 1  # of a warm-up, the frames meet each other
    assert relative_error(found[first:], without[first:]) > 1e-3
    reverse = translate(apply_all(names[::-1], sd15, motion), frames(COUNT), steps=3, cfg=2.0)
    assert relative_error(found, reverse) < 1e-6


@every_company
@torch.inference_mode()
def test_it_is_saved_and_loaded(sd15, motion, names):
    model, latents = apply_all(names, sd15, motion), frames(COUNT)
    whole, parts, state = translate(model, latents, steps=3), [], None
    for start, stop in ((0, 3), (3, 4), (4, COUNT)):
        with Stream(model, SIZE, COUNT, steps=3) as stream:
            if state:
                stream.session.load_state_dict(state)
            parts += stream.session.push_all(latents[start:stop])
            state = stream.session.state_dict()
            if stop == COUNT:
                parts += stream.session.flush()
    assert torch.equal(torch.stack(parts), whole)


@every_company
@torch.inference_mode()
def test_it_is_counted_and_told_what_it_needs(sd15, motion, names):
    model = apply_all(names, sd15, motion)
    applied = core("stream.memory").applied_memories(model)
    with Stream(model, SIZE, COUNT, steps=3, cfg=2.0, seed=11) as stream:
        session, host = stream.session, stream.host
        session.push_all(frames(COUNT))
        assert 0 < session.memory[NAME].nbytes < session.nbytes + (len(names) == 1)
        assert session.nbytes <= host.memory_bytes
        assert session.memory[NAME].nbytes * 2 == applied[NAME].nbytes(
            core("stream.memory").StreamShape(SIZE, 6, 4)
        )
        others = session.nbytes - session.memory[NAME].nbytes
        session.reset()
        # Ours stay allocated.
        assert (session.nbytes, session.memory[NAME].nbytes) == (others, 0)
    assert applied[NAME].started == [({"positive": 3, "negative": 3}, 11)]
    assert core("host.identity").model_identity(model)["average"] == "1/2"


def test_a_bank_sees_the_same_frames_whatever_groups_are_denoised(sd15):
    """A memory that only asks for groups changes nothing for the others."""

    class Grouped(AverageMemory):
        def group(self, frame):
            return range(frame - frame % 3, frame - frame % 3 + 3)

        def plan(self, groups, steps, integers):
            return AverageStep(self, ())

    alone = translate(banked(sd15, interval=1), frames(7), steps=3)
    model = banked(sd15, interval=1)
    applied = AppliedAverage(64, name="groups", largest_group=3)
    object.__setattr__(applied, "start", lambda steps, seed: Grouped())
    core("stream.memory").add_memory(model, applied)
    rows = []
    with torch.inference_mode(), Stream(model, SIZE, 7, steps=3) as stream:
        host = stream.host

        def note(x, plan):
            rows.append([row.frame for row in plan.rows])
            return host(x, plan)

        stream.session.model = note
        found = stream.run(frames(7))
    assert rows == 3 * [[0, 1, 2]] + 3 * [[3, 4, 5]] + 3 * [[6]]
    assert relative_error(found, alone) < ROUNDING


@pytest.mark.parametrize(
    "module",
    ["stream/pipeline", "stream/session", "host/model", "stream/call_plan", "stream/memory"],
)
def test_the_engine_knows_no_memory_by_name(module):
    """Neither imports one nor asks for one: read from the source."""
    tree = ast.parse((ROOT / "live2diff_core" / f"{module}.py").read_text(encoding="utf-8"))
    imported = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    imported |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert not {name for name in imported if str(name).startswith(("feature_bank", "live2diff"))}
    # A dictionary key or a comparison would be the name alone; messages are sentences.
    texts = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    assert not texts & {"feature_bank", "live2diff"}
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert not {name for name in names if "Bank" in name or "Motion" in name}
