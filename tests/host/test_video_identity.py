"""What Stream Video resumes by: every input that decides the result has a part in its name."""

import pytest
import torch
from host_stream import core, node, prompt, random
from live_stream_inputs import TinyVAE
from tiny_control import TinyControl, controlled, numbered


class Reader:
    """What a run names of an opened video."""

    class info:  # noqa: N801
        time_base = "1/24"


def run_settings(run):
    """All that a run is recognised by."""
    return run.identity()


@pytest.fixture
def inputs(sd15, tmp_path):
    """Make a VideoRun: the usual one, with some inputs changed."""
    clip = tmp_path / "clip"
    clip.write_bytes(b"frames")

    def make(checkpoint_every=5, **changes):
        model = changes.get("model", sd15)
        usual = {
            "model": model,
            "vae": TinyVAE(),
            "positive": prompt(),
            "negative": prompt(1),
            "depth_model": None,
            "schedule": schedule(model),
            "seed": 3,
            "guidance": guidance(),
            "shared_noise": False,
            "skip_rule": None,
        }
        values = {**usual, **changes}
        depth = values.pop("depth_model")
        spec = core("run.spec").StreamSpec(**values)
        # A plain MODEL reads no depth, but it is named all the same.
        object.__setattr__(spec, "depth_model", depth)
        return core("run.file").VideoRun(
            spec,
            Reader(),
            str(clip),
            (0.0, 0.0),
            "64x64",
            core("video.writer").Encoding("lossless", 18),
            checkpoint_every,
            "unknown",
        )

    return make


def schedule(model, steps=4, denoise=0.5, sigmas=None, rule="lcm"):
    rule = core("stream.schedule").StepRule(rule)
    return core("host.sd15").host_schedule(model, steps, denoise, sigmas, rule)


def guidance(cfg=2.0, mode="full", delta=1.0):
    return core("stream.guidance").Guidance(cfg, mode, delta)


def follow(before, after, start=4, blend=0, memory="keep"):
    schedule = node("prompts", "Live2DiffPromptSchedule")
    return schedule.execute(before, after, start, blend, memory).args[0]


def half_mask(value=1.0):
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = value
    return mask


def net(weight):
    made = TinyControl()
    made.weight.data.fill_(weight)
    return made


def chained(seed):
    """A ControlNet before the one that the prompt names."""
    positive = controlled(numbered(0, 1))
    before = controlled(numbered(seed, 1))[0][1]["control"]
    positive[0][1]["control"].set_previous_controlnet(before)
    return positive


def with_uuid(uuid):
    return prompt(uuid=uuid, additional_models=[object()])


# Prompts that are all different; each is made anew by every call.
PROMPTS = {
    "text": lambda: prompt(),
    "other text": lambda: prompt(5),
    "two texts": lambda: [*prompt(), *prompt(5)],
    "pooled": lambda: prompt(pooled_output=random(1, 8)),
    "mask": lambda: prompt(mask=half_mask(), mask_strength=1.0),
    "mask of other values": lambda: prompt(mask=half_mask(0.5), mask_strength=1.0),
    "mask strength": lambda: prompt(mask=half_mask(), mask_strength=0.5),
    "mask bounds": lambda: prompt(mask=half_mask(), mask_strength=1.0, set_area_to_bounds=True),
    "area": lambda: prompt(area=(8, 8, 0, 0), strength=1.0),
    "area elsewhere": lambda: prompt(area=(8, 8, 0, 8), strength=1.0),
    "area strength": lambda: prompt(area=(8, 8, 0, 0), strength=0.5),
    "start": lambda: prompt(start_percent=0.5, end_percent=1.0),
    "end": lambda: prompt(start_percent=0.0, end_percent=0.5),
    "control": lambda: controlled(numbered(0, 1)),
    "control's picture": lambda: controlled(numbered(1, 1)),
    "control's last picture": lambda: controlled(numbered(0, 4)),
    "control's last picture, other": lambda: controlled(numbered(0, 4)[[0, 1, 2, 2]]),
    "control's strength": lambda: controlled(numbered(0, 1), strength=10.0),
    "control's range": lambda: controlled(numbered(0, 1), time_range=(0.0, 0.5)),
    "control's weights": lambda: controlled(numbered(0, 1), net(2.0)),
    "control before": lambda: chained(1),
    "other control before": lambda: chained(2),
    "control in bfloat16": lambda: controlled((numbered(0, 1) / 3).to(torch.bfloat16)),
    "schedule": lambda: follow(prompt(), prompt(5)),
    "schedule's start": lambda: follow(prompt(), prompt(5), 5),
    "schedule's blend": lambda: follow(prompt(), prompt(5), blend=1),
    "schedule's reset": lambda: follow(prompt(), prompt(5), memory="reset"),
    "schedule's next text": lambda: follow(prompt(), prompt(6)),
    "schedule's first text": lambda: follow(prompt(1), prompt(5)),
    "schedule of three": lambda: follow(follow(prompt(), prompt(5)), prompt(6), 9),
}


@pytest.mark.parametrize("kind", ["positive", "negative"])
def test_every_part_of_a_prompt_counts(inputs, kind):
    named = {what: run_settings(inputs(**{kind: make()}))[kind] for what, make in PROMPTS.items()}
    alike = {what: [o for o in named if o != what and named[o] == named[what]] for what in named}
    assert not {what: others for what, others in alike.items() if others}


def test_equal_prompts_in_new_objects_have_one_name(inputs):
    for what, make in PROMPTS.items():
        one, other = (run_settings(inputs(positive=make())) for _ in range(2))
        assert one == other, what


def test_what_the_host_numbers_anew_does_not_count(inputs):
    one, other = (run_settings(inputs(positive=with_uuid(uuid))) for uuid in (1, 2))
    assert one == other == run_settings(inputs(positive=prompt()))


@pytest.mark.parametrize(
    "cfg, mode, read",
    [
        (2.0, "full", True),
        (2.0, "initialize", True),
        (1.0, "full", False),
        (2.0, "self", False),
        (2.0, "none", False),
    ],
)
def test_the_negative_counts_where_it_is_read(inputs, cfg, mode, read):
    one, other = (
        run_settings(inputs(negative=negative, guidance=guidance(cfg, mode)))
        for negative in (prompt(1), follow(prompt(1), prompt(6), memory="reset"))
    )
    assert (one != other) == read


# Settings beside the prompts


class Depth:
    """What is named of a DepthModel."""

    def __init__(self, gain=1.0):
        self.patcher = TinyVAE().patcher
        self.patcher.model.down.data *= gain


def vae(gain=1.0):
    made = TinyVAE()
    made.first_stage_model.up.data *= gain
    return made


def skip(threshold=0.9, most=10):
    return core("stream.similar_frames").SkipRule(threshold, most)


def levels(*sigmas, rule="lcm"):
    return lambda model: schedule(model, sigmas=torch.tensor([*sigmas, 0.0]), rule=rule)


SETTINGS = {
    "cfg": lambda model: {"guidance": guidance(3.0)},
    "guidance none": lambda model: {"guidance": guidance(2.0, "none")},
    "guidance self": lambda model: {"guidance": guidance(2.0, "self")},
    "guidance initialize": lambda model: {"guidance": guidance(2.0, "initialize")},
    "delta": lambda model: {"guidance": guidance(2.0, "self", 0.5)},
    "noise": lambda model: {"shared_noise": True},
    "few-step model": lambda model: {"schedule": schedule(model, rule="x0")},
    "seed": lambda model: {"seed": 4},
    "steps": lambda model: {"schedule": schedule(model, steps=8)},
    "denoise": lambda model: {"schedule": schedule(model, denoise=0.75)},
    "sigmas": lambda model: {"schedule": levels(3.0, 1.0)(model)},
    "other sigmas": lambda model: {"schedule": levels(3.0, 1.001)(model)},
    # At high ones both rules come to the same.
    "low sigmas": lambda model: {"schedule": levels(3.0, 0.05)(model)},
    "few-step model at low sigmas": lambda model: {"schedule": levels(3.0, 0.05, rule="x0")(model)},
    "depth": lambda model: {"depth_model": Depth()},
    "depth weights": lambda model: {"depth_model": Depth(2.0)},
    "VAE": lambda model: {"vae": vae(2.0)},
    "filter": lambda model: {"skip_rule": skip()},
    "filter's threshold": lambda model: {"skip_rule": skip(0.95)},
    "filter's most": lambda model: {"skip_rule": skip(0.9, 9)},
    "checkpoint_every": lambda model: {"checkpoint_every": 6},
}


def test_every_setting_counts(inputs, sd15):
    made = [run_settings(inputs()), *(run_settings(inputs(**s(sd15))) for s in SETTINGS.values())]
    for place, what in enumerate(["nothing", *SETTINGS]):
        assert made[place] not in made[:place], what


def test_equal_settings_in_new_objects_have_one_name(inputs, sd15):
    for what, make in SETTINGS.items():
        one, other = (run_settings(inputs(**make(sd15))) for _ in range(2))
        assert one == other, what


@pytest.mark.parametrize("cfg, mode", [(1.0, "self"), (2.0, "full"), (2.0, "none")])
def test_delta_counts_only_where_it_is_used(inputs, cfg, mode):
    one, other = (run_settings(inputs(guidance=guidance(cfg, mode, d))) for d in (1.0, 0.5))
    assert one == other


def test_at_cfg_1_all_guidance_is_one(inputs):
    named = [run_settings(inputs(guidance=guidance(1.0, m))) for m in ("full", "self", "none")]
    assert named[0] == named[1] == named[2]
