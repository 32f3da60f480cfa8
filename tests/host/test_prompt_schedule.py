"""Prompts that change over a stream: every row of every call is shown the prompt of its frame."""

from importlib import import_module

import pytest
import torch
from host_stream import (
    PROMPT_WIDTH,
    SIZE,
    Stream,
    core,
    frames,
    node,
    patched,
    prompt,
    random,
    relative_error,
)
from live_stream_inputs import TinyVAE, pictures, sampled, step, stream

LIMIT = 1e-4
COUNT, STEPS = 7, 3


def follow(before, after, start, blend=0, memory="keep"):
    """The node."""
    made = node("prompts", "Live2DiffPromptSchedule").execute(before, after, start, blend, memory)
    return made.args[0]


def between(first, second, weight):
    """A conditioning in the middle of two."""
    return [[first[0][0] * (1 - weight) + second[0][0] * weight, {}]]


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, 4, 2)


@pytest.fixture
def shown(sd15):
    """Texts of the UNet's rows, call by call; ask for it before `model`."""
    calls = []

    def record(apply, call):
        calls.append(call["c"]["c_crossattn"].clone())
        return apply(call["input"], call["timestep"], **call["c"])

    sd15.set_model_unet_function_wrapper(record)
    return calls


@torch.inference_mode()
def run(model, positive, latents=None, first=0, **settings):
    """Stream a clip whose noise is that of frames from `first` on."""
    latents = frames(COUNT) if latents is None else latents
    settings = {"steps": STEPS, "positive": positive, **settings}
    with Stream(model, SIZE, len(latents), **settings) as opened:
        noise = opened.noise
        opened.session.pipeline.noise = core("stream.pipeline").noise_ahead(
            lambda frame, at, shape: noise(first + frame, at, shape)
        )
        return opened.run(latents)


# Rows


@pytest.mark.parametrize("cfg", [1.0, 2.0])
@pytest.mark.parametrize("start, blend", [(1, 0), (4, 0), (3, 2)])
@torch.inference_mode()
def test_every_row_is_at_the_prompt_of_its_frame(shown, model, start, blend, cfg):
    """At a cut and through a blend, in the warm-up and where calls have frames of both sides."""
    first, second = prompt(0), prompt(5)
    schedule = follow(first, second, start, blend)
    asked = []
    with Stream(model, SIZE, COUNT, steps=STEPS, positive=schedule, cfg=cfg) as opened:

        def note(x, plan):
            asked.append([row.frame for row in plan.rows])
            return opened.host(x, plan)

        opened.session.model = note
        opened.run(frames(COUNT))
    assert len(shown) == len(asked) and [5, 4, 3] in asked
    for rows, numbers in zip(shown, asked, strict=True):
        weights = [min(max(f - start + 1, 0) / (blend + 1), 1) for f in numbers]
        texts = [between(first, second, weight)[0][0] for weight in weights]
        if cfg != 1.0:
            # The host puts either kind first; negatives have a prompt of their own.
            alone = [row for row in rows if torch.equal(row, prompt(1)[0][0][0])]
            assert len(alone) == len(numbers)
            rows = rows[len(numbers) :] if torch.equal(rows[0], alone[0]) else rows[: len(numbers)]
        torch.testing.assert_close(rows, torch.cat(texts), rtol=1e-6, atol=1e-6)


# Frames


def test_without_a_memory_each_frame_is_translated_with_its_prompt(sd15):
    first, second, third = prompt(0), prompt(5), prompt(6)
    schedule = follow(follow(first, second, 2), third, 4, blend=1)
    found = run(sd15, schedule)
    own = [first, first, second, second, between(second, third, 0.5), third, third]
    for frame, conditioning in enumerate(own):
        alone = run(sd15, conditioning, frames(COUNT)[frame : frame + 1], first=frame)
        assert relative_error(found[frame : frame + 1], alone) < LIMIT
    assert relative_error(run(sd15, first)[2:], found[2:]) > 1e-2


def test_a_schedule_of_negatives(sd15):
    schedule = follow(prompt(1), prompt(5), 3)
    found = run(sd15, prompt(), negative=schedule, cfg=2.0)
    sides = [run(sd15, prompt(), negative=prompt(seed), cfg=2.0) for seed in (1, 5)]
    assert relative_error(found, torch.cat([sides[0][:3], sides[1][3:]])) < LIMIT
    assert relative_error(sides[0], sides[1]) > 1e-2


def test_prompts_of_other_lengths(sd15):
    """77 tokens, then 154, then 231."""
    texts = [[[random(1, 77 * n, PROMPT_WIDTH, seed=n) * 10, {}]] for n in (1, 2, 3)]
    found = run(sd15, follow(follow(texts[0], texts[1], 2), texts[2], 5), cfg=1.5)
    sides = [run(sd15, each, cfg=1.5) for each in texts]
    expected = torch.cat([sides[0][:2], sides[1][2:5], sides[2][5:]])
    assert relative_error(found, expected) < LIMIT


def test_several_parts_at_once(sd15):
    before, after = [*prompt(0), *prompt(2)], [*prompt(5), *prompt(6)]
    found = run(sd15, follow(before, after, 3))
    expected = torch.cat([run(sd15, before)[:3], run(sd15, after)[3:]])
    assert relative_error(found, expected) < LIMIT


def banked(model):
    config = core("feature_bank.bank").BankConfig(interval=2, similarity_threshold=0.5)
    return core("feature_bank.patch").apply_feature_bank(model, config)


@pytest.mark.parametrize("bank", [False, True], ids=["motion module", "both"])
@pytest.mark.parametrize("start", [1, 4])
def test_reset_joins_two_streams_and_keep_does_not(model, bank, start):
    """In the warm-up, too: the first part is then a stream of one frame."""
    model = banked(model) if bank else model
    latents, first, second = frames(COUNT), prompt(0), prompt(5)
    before = run(model, first, latents[:start])
    after = run(model, second, latents[start:], first=start)
    joined = torch.cat([before, after])
    found = run(model, follow(first, second, start, memory="reset"))
    assert relative_error(found, joined) < LIMIT
    kept = run(model, follow(first, second, start))
    assert relative_error(kept[start:], joined[start:]) > 1e-3


def test_reset_by_the_negative(model):
    latents = frames(COUNT)
    schedule = follow(prompt(1), prompt(5), 4, memory="reset")
    found = run(model, prompt(), negative=schedule, guidance="initialize", cfg=1.5)
    settings = {"guidance": "initialize", "cfg": 1.5}
    before = run(model, prompt(), latents[:4], negative=prompt(1), **settings)
    after = run(model, prompt(), latents[4:], first=4, negative=prompt(5), **settings)
    assert relative_error(found, torch.cat([before, after])) < LIMIT


# Nodes


@pytest.fixture
def streams(pack):
    registry = core("run.registry").STREAMS
    registry.clear()
    yield registry
    registry.clear()


@pytest.mark.parametrize("memory", ["keep", "reset"])
def test_one_frame_a_run_equals_the_stream_sampler(model, streams, memory):
    images, vae = pictures(8), TinyVAE()
    schedule = follow(prompt(0), prompt(5), 4, 1, memory)
    expected = sampled(images, model, vae, positive=schedule)
    assert torch.equal(stream(images, model, vae, positive=schedule), expected)
    assert not torch.equal(sampled(images, model, vae), expected)


def test_a_stream_is_told_apart_by_its_schedule(streams):
    name = core("host.identity").prompt_identity
    plain, usual = prompt(0), follow(prompt(0), prompt(5), 4)
    assert name(usual) == name(follow(prompt(0), prompt(5), 4))
    others = [
        plain,
        usual,
        follow(prompt(0), prompt(5), 5),
        follow(prompt(0), prompt(5), 4, 1),
        follow(prompt(0), prompt(5), 4, 0, "reset"),
        follow(prompt(0), prompt(6), 4),
        follow(prompt(1), prompt(5), 4),
        follow(usual, prompt(6), 9),
    ]
    assert len({name(each) for each in others}) == len(others)


def test_another_schedule_starts_a_live_stream_over(sd15, streams):
    images, vae = pictures(1), TinyVAE()
    settings = {"on_prompt_change": "start over", "denoise": 0.25}
    usual = follow(prompt(0), prompt(5), 4)
    for index in range(2):
        assert step(images, sd15, vae, positive=usual, **settings)[1] == index
    assert step(images, sd15, vae, positive=follow(prompt(0), prompt(5), 5), **settings)[1] == 0


# What cannot be


def host_node(name):
    """One of ComfyUI's own nodes."""
    return import_module("nodes").NODE_CLASS_MAPPINGS[name]()


@pytest.mark.parametrize("what", ["Average", "Concat"])
def test_text_changed_behind_the_schedule(sd15, what):
    schedule = follow(prompt(0), prompt(5), 2)
    if what == "Average":
        changed = host_node("ConditioningAverage").addWeighted(schedule, prompt(3), 0.5)[0]
    else:
        changed = host_node("ConditioningConcat").concat(schedule, prompt(3))[0]
    error = core("stream.prompt_track").PromptScheduleError
    with pytest.raises(error, match="changed its first text.*Put it before"):
        run(sd15, changed)


def test_what_goes_behind_the_schedule(sd15):
    """Settings that hold for all prompts are kept, whichever prompt is shown."""
    schedule = follow(prompt(0), prompt(5), 3)
    area = host_node("ConditioningSetArea").append(schedule, 64, 64, 0, 0, 1.0)[0]
    found = run(sd15, [*prompt(7), *area])
    sides = [run(sd15, [*prompt(7), *prompt(seed, area=(8, 8, 0, 0))]) for seed in (0, 5)]
    assert relative_error(found, torch.cat([sides[0][:3], sides[1][3:]])) < LIMIT


@pytest.mark.parametrize(
    "after, message",
    [
        (prompt(5, control=object()), "carries control.*behind the last"),
        (prompt(5, area=(8, 8, 0, 0)), "carries area"),
        (prompt(5, mask=torch.ones(1, 8, 8)), "carries mask"),
        (prompt(5, start_percent=0.0), "carries start_percent"),
        ([*prompt(5), *prompt(6)], "1 parts and the next one 2"),
        ([[random(2, 77, PROMPT_WIDTH), {}]], "single texts from one CLIP"),
        ([[random(1, 77, 16), {}]], "single texts from one CLIP"),
    ],
)
def test_what_cannot_follow(pack, after, message):
    error = core("stream.prompt_track").PromptScheduleError
    with pytest.raises(error, match=message):
        follow(prompt(0), after, 4)


def test_a_schedule_cannot_be_the_next_prompt(pack):
    error = core("stream.prompt_track").PromptScheduleError
    with pytest.raises(error, match="a schedule of its own.*chain schedules by 'prompt'"):
        follow(prompt(0), follow(prompt(5), prompt(6), 9), 4)


@pytest.mark.parametrize("start", [3, 4, 6])
def test_changes_in_the_wrong_order(pack, start):
    with pytest.raises(ValueError, match="Start it at frame 7 or later"):
        follow(follow(prompt(0), prompt(5), 4, blend=2), prompt(6), start)


def test_the_first_prompt_is_not_touched(pack):
    first = prompt(0, strength=0.5)
    before = dict(first[0][1])
    follow(first, prompt(5), 4)
    assert first[0][1] == before
