"""ControlNets on live streams: each run brings the picture of its frames, which rows keep."""

import comfy.model_management
import pytest
import torch
from host_stream import SIZE, Stream, core, frames, node, patched, prompt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from live_stream_inputs import pictures, sampled, step
from tiny_control import TinyControl, controlled, numbered

COUNT = 7
pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, 4, 2)


def save_and_load(streams):
    """As after a restart of the host: nothing of the stream is left but its file."""
    node("live_files", "Live2DiffSaveStream").execute("live", "live")
    streams.clear()
    node("live_files", "Live2DiffLoadStream").execute("live.safetensors [output]", "live", "once")


def live(images, model, vae, cuts, between=lambda index: None, make=None, **changes):
    """Feed pieces of the sizes `cuts`, each with the pictures of its own frames only.

    Returns the frames, and what the ControlNet showed the rows of each call.
    """
    net, done, first = TinyControl(), [], 0
    make = make or (lambda first, count: controlled(numbered(first, count), net))
    for index, piece in enumerate(images.split(cuts)):
        between(index)
        changes = {**changes, "positive": make(first, len(piece))}
        finish = first + len(piece) == len(images)
        result, at, _ = step(piece, model, vae, finish=finish, **changes)
        done += [result] if at >= 0 else []
        first += len(piece)
    return torch.cat(done), net.seen


def at_once(images, model, vae, **changes):
    """The same by the Stream Sampler, with the pictures of all frames."""
    net = TinyControl()
    positive = controlled(numbered(0, len(images)), net)
    return sampled(images, model, vae, positive=positive, **changes), net.seen


@pytest.mark.parametrize("denoise, cfg", [(0.5, 1.0), (0.75, 1.5)])
def test_one_frame_a_run_equals_the_stream_sampler(model, vae, streams, denoise, cfg):
    images, options = pictures(COUNT), {"denoise": denoise, "cfg": cfg}
    found, seen = live(images, model, vae, [1] * COUNT, **options)
    expected, shown = at_once(images, model, vae, **options)
    assert torch.equal(found, expected) and seen == shown
    full = {0.5: [COUNT, COUNT - 1], 0.75: [COUNT, COUNT - 1, COUNT - 2] * 2}[denoise]
    assert full in seen
    plain = sampled(images, model, vae, **options)
    assert (found - plain).abs().max() > 1e-3


@settings(
    deadline=None, max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_neither_cuts_nor_saves_change_anything(model, vae, streams, data):
    cuts = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=4))
    saves = data.draw(st.sets(st.integers(1, len(cuts) - 1), min_size=1))
    streams.clear()
    images = pictures(sum(cuts))

    def between(index):
        if index in saves:
            save_and_load(streams)

    found, seen = live(images, model, vae, cuts, between)
    expected, shown = at_once(images, model, vae)
    assert seen == shown
    assert (found - expected).abs().max() <= 1e-5


def test_frames_in_flight_keep_their_pictures_over_a_save(sd15, vae, streams):
    """Three steps: two frames are inside, and their pictures are in the file."""
    images = pictures(5)
    settings = {"denoise": 0.75}
    found, seen = live(
        images, sd15, vae, [3, 2], lambda i: i and save_and_load(streams), **settings
    )
    assert seen == [[1], [2, 1], [3, 2, 1], [4, 3, 2], [5, 4, 3], [5, 4], [5]]
    assert torch.equal(found, at_once(images, sd15, vae, **settings)[0])
    streams.clear()
    step(images[:3], sd15, vae, positive=controlled(numbered(0, 3)), **settings)
    assert sorted(streams.get("live").hints) == [1, 2]
    saved = [name for name in streams.get("live").state_dict() if name.startswith("hints/")]
    assert sorted(saved) == ["hints/1/0", "hints/2/0"]


def test_chained_controls_keep_their_order(sd15, vae, streams):
    nets = TinyControl(), TinyControl()

    def make(first, count):
        one = controlled(numbered(first, count), nets[0])[0][1]["control"]
        positive = controlled(numbered(first + 100, count), nets[1])
        positive[0][1]["control"].set_previous_controlnet(one)
        return positive

    live(pictures(4), sd15, vae, [1, 2, 1], lambda i: i and save_and_load(streams), make)
    assert nets[0].seen == [[1], [2, 1], [3, 2], [4, 3], [4]]
    assert nets[1].seen == [[n + 100 for n in call] for call in nets[0].seen]


def test_pictures_of_another_size_from_some_frame_on(sd15, vae, streams):
    net = TinyControl()

    def make(first, count):
        return controlled(numbered(first, count, (64, 80) if first < 2 else (32, 40)), net)

    live(pictures(4), sd15, vae, [1] * 4, make=make)
    assert net.seen == [[1], [2, 1], [3, 2], [4, 3], [4]]


def test_a_control_that_comes_later_is_for_the_frames_from_there_on(sd15, vae, streams):
    """Frames that are inside have no picture of their own; the first one is shown to them."""
    net = TinyControl()

    def make(first, count):
        return prompt() if first < 2 else controlled(numbered(first, count), net)

    live(pictures(4), sd15, vae, [1] * 4, make=make)
    assert net.seen == [[3, 3], [4, 3], [4]]


@pytest.mark.parametrize("memory", ["keep", "reset"])
def test_controls_behind_a_prompt_schedule(model, vae, streams, memory):
    images, net = pictures(6), TinyControl()
    follow = node("prompts", "Live2DiffPromptSchedule")

    def make(first, count):
        ((_, extra),) = controlled(numbered(first, count), net)
        ((text, track),) = follow.execute(prompt(), prompt(5), 4, 0, memory).args[0]
        return [[text, {**extra, **track}]]

    found, _ = live(images, model, vae, [1] * 6, make=make)
    seen = list(net.seen)
    net.seen.clear()
    assert torch.equal(found, sampled(images, model, vae, positive=make(0, 6)))
    assert seen == net.seen and ([5, 4] in net.seen) == (memory == "keep")


def test_skipped_frames_show_no_picture(sd15, vae, streams):
    images = pictures(3)[[0, 0, 1, 1, 1, 2]]
    skip = node("options", "Live2DiffSimilarFrameFilter").execute(0.9, 10).args[0]
    found, seen = live(images, sd15, vae, [1, 2, 1, 2], frame_filter=skip)
    expected, shown = at_once(images, sd15, vae, frame_filter=skip)
    assert seen == shown == [[1], [3, 1], [6, 3], [6]]
    assert torch.equal(found, expected)


def test_an_interrupt_keeps_the_pictures_of_frames_inside(sd15, vae, streams, monkeypatch):
    images, net = pictures(5), TinyControl()
    host_model = core("host.model").HostModel
    calls, call = [], host_model.__call__

    def stop_at_third(self, x, plan):
        calls.append(plan)
        if len(calls) == 3:
            raise comfy.model_management.InterruptProcessingException
        return call(self, x, plan)

    with monkeypatch.context() as patch:
        patch.setattr(host_model, "__call__", stop_at_third)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            step(images[:3], sd15, vae, positive=controlled(numbered(0, 3), net))
    # Two went in; the next run begins with the third.
    result = step(images[2:], sd15, vae, finish=True, positive=controlled(numbered(2, 3), net))[0]
    expected, shown = at_once(images, sd15, vae)
    assert net.seen == shown and torch.equal(result, expected)


@pytest.mark.parametrize("count, shown", [(1, [1, 1, 1]), (3, [1, 2, 3])])
def test_a_run_takes_one_picture_or_one_per_frame(sd15, vae, streams, count, shown):
    net = TinyControl()
    positive = controlled(numbered(0, count), net)
    step(pictures(3), sd15, vae, positive=positive, denoise=0.25)
    assert net.seen == [[number] for number in shown]


def test_other_counts_of_pictures_are_refused(sd15, vae, streams):
    with pytest.raises(ValueError, match="Stream Step: a ControlNet takes one image for each"):
        step(pictures(3), sd15, vae, positive=controlled(numbered(0, 2)))


# Videos, whose length nobody knows


@torch.inference_mode()
def open_ended(model, images, count):
    net = TinyControl()
    with Stream(model, SIZE, None, steps=3, positive=controlled(images, net)) as stream:
        stream.run(frames(count))
    return net.seen


def test_a_video_takes_a_batch_that_is_long_enough(sd15):
    expected = [[1], [2, 1], [3, 2, 1], [4, 3, 2], [4, 3], [4]]
    assert open_ended(sd15, numbered(0, 4), 4) == expected
    assert open_ended(sd15, numbered(0, 9), 4) == expected
    assert {n for call in open_ended(sd15, numbered(0, 1), 4) for n in call} == {1}


def test_a_video_that_outlasts_its_batch_says_so(sd15):
    error = core("host.control_hints").ControlHintError
    with pytest.raises(error, match="got 3 images, but the video has a frame 3"):
        open_ended(sd15, numbered(0, 3), 4)
