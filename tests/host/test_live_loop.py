"""A live stream's run: what comes out, what changes when, and what is counted."""

import pytest
import torch
from host_stream import core, patched, prompt
from live_script import SAMPLING, live_inputs, live_pixels, run_live
from live_stream_inputs import step

WARMUP, WINDOW = 2, 4
pytestmark = pytest.mark.usefixtures("streams")


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, WINDOW, WARMUP)


def stepped(pixels, model, vae, **changes):
    """The same frames through Stream Step, rounded."""
    done = []
    for index, picture in enumerate(pixels):
        image = torch.from_numpy(picture)[None].float() / 255.0
        last = index == len(pixels) - 1
        found, first, _ = step(image, model, vae, stream="stepped", finish=last, **changes)
        done += [found] if first >= 0 else []
    return torch.cat(done).mul(255).round().byte()


def seen(script):
    return torch.stack([torch.from_numpy(r.picture) for r in script.follower.finished])


def test_it_is_stream_step_without_a_graph(streams, model, vae):
    pixels = live_pixels(10)
    script = run_live(streams, live_inputs(model, vae), pixels)
    assert torch.equal(seen(script), stepped(pixels, model, vae))
    results = script.follower.finished
    assert [r.index for r in results] == list(range(10))
    assert [r.frame.sequence for r in results] == list(range(1, 11))
    assert [r.last for r in results] == [False] * 9 + [True]
    assert streams.get("live") is None


def test_while_it_warms_up_the_frames_come_back_as_they_are(streams, model, vae):
    pixels = live_pixels(6)
    script = run_live(streams, live_inputs(model, vae), pixels)
    first = script.follower.results[0]
    assert first.warming_up and (first.picture == pixels[0]).all()


def test_it_stops_and_goes_on_with_its_memory(streams, model, vae):
    pixels, inputs = live_pixels(12), live_inputs(model, vae)
    first = run_live(streams, inputs, pixels[:5], end="stop")
    assert streams.get("live").translator.session.frames_in == 5
    second = run_live(streams, inputs, pixels[5:])
    whole = torch.cat([seen(first), seen(second)])
    assert torch.equal(whole, stepped(pixels, model, vae))
    indices = [r.index for r in (*first.follower.finished, *second.follower.finished)]
    assert indices == list(range(12))


def test_stream_step_goes_on_with_a_live_stream_and_the_other_way_round(streams, model, vae):
    pixels, inputs = live_pixels(9), live_inputs(model, vae)
    first = run_live(streams, inputs, pixels[:3], end="stop")
    image = torch.from_numpy(pixels[3:6]).float() / 255.0
    middle, index, _ = step(image, model, vae, **SAMPLING)
    last = run_live(streams, inputs, pixels[6:])
    assert index == len(first.follower.finished)
    whole = [seen(first), middle.mul(255).round().byte(), seen(last)]
    assert torch.equal(torch.cat(whole), stepped(pixels, model, vae))
    # The results of frames that Stream Step pushed are nobody's.
    assert [r.frame for r in last.follower.finished[:1]] == [None]


def test_a_changed_prompt_is_a_prompt_schedule_at_that_frame(streams, model, vae):
    pixels = live_pixels(14)
    before = {6: [("prompt", {"text": "5", "blend": 3})]}
    script = run_live(streams, live_inputs(model, vae), pixels, before)
    change = core("stream.prompt_timeline").PromptChange(6, 3)
    scheduled = core("stream.prompt_track").follow(prompt(), prompt(5), change)
    assert torch.equal(seen(script), stepped(pixels, model, vae, positive=scheduled))
    (told,) = script.follower.applied("prompt")
    assert (told["frame"], told["id"], told["restarts"]) == (6, 6, False)


def test_of_one_setting_the_newest_value_wins_and_all_settings_change(streams, model, vae):
    before = {
        5: [
            ("prompt", {"text": "3", "blend": 0}),
            ("cfg", 7.0),
            ("prompt", {"text": "5", "blend": 0}),
            ("threshold", 0.5),
            ("cfg", 1.0),
        ]
    }
    script = run_live(streams, live_inputs(model, vae), live_pixels(9), before)
    told = [(m["applied"], m["frame"]) for m in script.follower.told if "applied" in m]
    assert told == [("prompt", 5), ("cfg", 5), ("threshold", 5)]
    assert script.follower.applied("prompt")[0]["value"]["text"] == "5"


@pytest.mark.parametrize(
    ("control", "value", "restarts"),
    [
        ("cut", True, True),
        ("seed", "9", True),
        ("steps", 8, True),
        ("denoise", 0.75, True),
        ("cfg", 2.0, True),
        ("threshold", 0.9, False),
    ],
)
def test_no_frame_is_lost_at_a_change(streams, model, vae, control, value, restarts):
    script = run_live(streams, live_inputs(model, vae), live_pixels(13), {7: [(control, value)]})
    results = script.follower.finished
    assert [r.index for r in results] == list(range(13))
    assert [r.frame.sequence for r in results] == list(range(1, 14))
    (told,) = script.follower.applied(control)
    assert (told["frame"], told["restarts"], told["value"]) == (7, restarts, value)


def test_guidance_that_runs_already_changes_without_a_restart(streams, model, vae):
    inputs = live_inputs(model, vae, cfg=2.0)
    script = run_live(streams, inputs, live_pixels(9), {5: [("cfg", 5.0)]}, end="stop")
    assert not script.follower.applied("cfg")[0]["restarts"]
    # And the graph with the new value goes on with the same stream.
    again = run_live(streams, live_inputs(model, vae, cfg=5.0), live_pixels(3))
    assert again.follower.finished[0].index == 8


def test_after_a_cut_the_stream_is_as_new(streams, model, vae):
    pixels = live_pixels(12)
    script = run_live(streams, live_inputs(model, vae), pixels, {6: [("cut", True)]})
    plain = run_live(streams, live_inputs(model, vae), pixels)
    off = (seen(script).int() - seen(plain).int()).abs().amax((1, 2, 3))
    # Those inside at the cut were finished without newer ones in the batch, which rounds otherwise.
    assert off[:6].max() <= 1 < off[6:].min()


def test_what_cannot_be_changed_is_answered_and_the_stream_goes_on(streams, model, vae):
    levels = torch.tensor(core("host.sd15").host_schedule(model, 4, 0.5).sigmas)
    inputs = live_inputs(model, vae, sigmas=levels)
    script = run_live(streams, inputs, live_pixels(6), {3: [("steps", 8), ("seed", "4")]})
    (error,) = [m for m in script.follower.told if "error" in m]
    assert error["code"] == "unavailable" and error["remedy"] and error["id"] == 3
    assert len(script.follower.finished) == 6 and script.follower.applied("seed")


def test_a_changed_prompt_stays_where_the_stream_starts_over(streams, model, vae):
    pixels, text = live_pixels(12), {"text": "5", "blend": 4}
    before = {4: [("prompt", text)], 6: [("seed", "9")]}
    script = run_live(streams, live_inputs(model, vae), pixels, before)
    expected = stepped(pixels[6:], model, vae, positive=prompt(5), seed=9)
    assert torch.equal(seen(script)[6:], expected)


def test_without_clip_no_prompt_is_taken(streams, model, vae):
    refused = []

    def ask(script):
        with pytest.raises(core("live.controls").ControlError) as caught:
            script.ask("prompt", {"text": "1"})
        refused.append(caught.value.code)

    run_live(streams, live_inputs(model, vae), live_pixels(4), {2: [("call", ask)]}, texts=False)
    assert refused == ["unavailable"]


def test_while_it_is_paused_frames_are_dropped_and_counted(streams, model, vae):
    script = run_live(streams, live_inputs(model, vae), live_pixels(6), {3: [("pause", None)]})
    # The frame of the pause's beginning waits in the slot, the next one comes amid the pause.
    assert (script.count.received, script.count.dropped) == (6, 1)
    assert [r.frame.sequence for r in script.follower.finished] == [1, 2, 3, 4, 6]
    states = [m["state"] for m in script.follower.told if "state" in m]
    assert states == ["starting", "running", "paused", "running", "stopped"]


def test_a_failing_model_loses_one_counted_frame_and_the_stream_lives(
    streams, model, vae, monkeypatch
):
    session = core("stream.session").StreamSession
    push = session.push

    def fail(self, *arguments):
        if self.frames_in == 4:
            raise RuntimeError("a failure of the model")
        return push(self, *arguments)

    monkeypatch.setattr(session, "push", fail)
    with pytest.raises(RuntimeError, match="a failure"):
        run_live(streams, live_inputs(model, vae), live_pixels(8))
    channel = core("live.channels").CHANNELS.get("live")
    assert streams.get("live").translator.session.frames_in == 4
    assert channel.state == "stopped"
    assert channel.figures.inside == 4 - channel.figures.finished
