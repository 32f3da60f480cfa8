"""When prompts change: weights of every frame, and sessions whose memory starts over."""

import pytest
import torch
import toy_stream as toy
from fed_session import FedSession
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_core.live2diff.window import AttentionMode, AttentionWindow
from live2diff_core.run.notices import Notices
from live2diff_core.run.unreached import tell_of_unreached_prompts
from live2diff_core.stream.noise import FrameNoise
from live2diff_core.stream.prompt_timeline import PromptChange, PromptTimeline
from live2diff_core.stream.session import StreamSession

SEED = 7
CONFIGS = [None, *(AttentionWindow(6, 3, mode) for mode in AttentionMode)]
NAMES = ["no memory", *(mode.value for mode in AttentionMode)]
every_config = pytest.mark.parametrize("config", CONFIGS, ids=NAMES)


@st.composite
def timelines(draw):
    """Up to four changes in order, with gaps and blends of 0 to 5 frames."""
    changes, start = [], 1
    for gap, blend in draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=4)):
        changes.append(PromptChange(start + gap, blend, draw(st.booleans())))
        start += gap + blend + 1
    return PromptTimeline(tuple(changes))


# Weights


def test_a_cut_is_whole_at_once():
    timeline = PromptTimeline((PromptChange(3),))
    assert [timeline.weights(frame) for frame in range(5)] == [{0: 1.0}] * 3 + [{1: 1.0}] * 2


def test_a_blend_takes_over_evenly():
    timeline = PromptTimeline((PromptChange(3, blend=3),))
    parts = [timeline.weights(frame).get(1, 0.0) for frame in range(8)]
    assert parts == [0.0, 0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


@given(timelines(), st.integers(0, 60))
def test_weights_are_parts_of_neighbouring_prompts(timeline, frame):
    weights = timeline.weights(frame)
    assert sum(weights.values()) == pytest.approx(1.0)
    assert all(0 < weight <= 1 for weight in weights.values())
    assert max(weights) - min(weights) == len(weights) - 1 <= 1


@given(timelines())
def test_every_prompt_has_its_turn_in_order(timeline):
    leading = [max(timeline.weights(frame)) for frame in range(60)]
    assert leading == sorted(leading)
    assert set(leading) == set(range(len(timeline.changes) + 1))
    assert timeline.weights(60) == {len(timeline.changes): 1.0}


@given(timelines())
def test_a_change_is_every_frame_of_a_cut_or_blend(timeline):
    changing = {
        change.start + later for change in timeline.changes for later in range(change.blend + 1)
    }
    assert {frame for frame in range(60) if timeline.changes_at(frame)} == changing


@given(timelines())
def test_memory_starts_over_where_a_change_says_so(timeline):
    restarts = {change.start for change in timeline.changes if change.restart}
    assert {frame for frame in range(60) if timeline.restarts(frame)} == restarts


@pytest.mark.parametrize("start", [0, -1])
def test_a_change_before_the_second_frame(start):
    with pytest.raises(ValueError, match=f"take over at frame {start}.*frame 1 or later"):
        PromptChange(start)


def test_a_negative_blend():
    with pytest.raises(ValueError, match="blend is -1 frames long"):
        PromptChange(1, -1)


@pytest.mark.parametrize("start", [2, 5, 8])
def test_a_change_before_the_one_before_is_over(start):
    with pytest.raises(ValueError, match="Start it at frame 9 or later"):
        PromptTimeline((PromptChange(5, blend=3), PromptChange(start)))
    PromptTimeline((PromptChange(5, blend=3), PromptChange(9)))


# Sessions


def opened(config, steps, changes=(), first=0):
    """A session whose frames are counted from `first` for the noise."""
    memory = config and toy.motion_memory(config, {"positive": steps})
    noise = FrameNoise(SEED)
    session = StreamSession(
        toy.schedule(steps), lambda frame, step, shape: noise(first + frame, step, shape), memory
    )
    timeline = PromptTimeline(tuple(PromptChange(*change) for change in changes))
    return FedSession(session, toy.ToyModel(timelines=[timeline]))


def stream(latents, config, steps, changes=(), first=0):
    session = opened(config, steps, changes, first)
    return torch.cat([session.push_all(latents), session.flush()])


@every_config
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("start", [1, 2, 3, 4, 7, 8])
def test_a_restart_joins_two_streams(config, steps, start):
    """At any frame: in the warm-up, while the pipeline fills, and later."""
    latents = toy.frames(14)
    before = stream(latents[:start], config, steps)
    after = stream(latents[start:], config, steps, first=start)
    found = stream(latents, config, steps, [(start, 0, True)])
    assert torch.equal(found, torch.cat([before, after]))
    assert torch.equal(stream(latents, config, steps), found) == (config is None)


@every_config
def test_a_change_that_keeps_changes_nothing_in_the_memory(config):
    latents = toy.frames(12)
    kept = stream(latents, config, 3, [(5, 2, False), (9, 0, False)])
    assert torch.equal(kept, stream(latents, config, 3))


@every_config
@given(data=st.data())
@settings(deadline=None, max_examples=8)
def test_restarts_with_cuts_saves_and_failures(config, data):
    """As many frames out as in, and the same ones, whatever comes between."""
    count, steps = data.draw(st.integers(1, 16)), data.draw(st.integers(1, 4))
    starts = sorted(data.draw(st.sets(st.integers(1, 16), max_size=3)))
    changes = [(start, 0, True) for start in starts]
    saves = data.draw(st.sets(st.integers(0, count - 1), max_size=3))
    fail_at = data.draw(st.integers(1, 20))
    latents, found = toy.frames(count), []
    session = opened(config, steps, changes)
    for index, latent in enumerate(latents):
        if index in saves:
            state = {name: tensor.clone() for name, tensor in session.state_dict().items()}
            session = opened(config, steps, changes)
            session.load_state_dict(state)
            session.model.fail_at = fail_at
        try:
            found += session.push(latent)
        except InterruptedError:
            found += session.push(latent)
        assert session.frames_out == len(found) <= session.frames_in
    session.model.fail_at = None
    found += session.drain()
    assert torch.equal(torch.stack(found), stream(latents, config, steps, changes))


def test_frames_of_one_prompt_do_not_wait_for_those_of_the_next():
    """At a restart the pipeline is emptied first: no call has frames from both sides."""
    session = opened(AttentionWindow(6, 3), 3, [(7, 0, True)])
    session.push_all(toy.frames(14))
    session.flush()
    calls = [{row.frame >= 7 for row in plan.rows} for plan in session.model.plans]
    assert all(len(sides) == 1 for sides in calls)


def test_prompts_that_the_stream_did_not_reach_are_told(caplog):
    session, notices = opened(None, 2, [(2,), (7,)]), Notices()
    session.push_all(toy.frames(4))
    for _ in range(2):
        tell_of_unreached_prompts(session.session, session.model, notices)
    (message,) = caplog.messages
    assert "starts at frame 7 was never shown: there are only 4 frames (0 to 3)" in message
    assert message.removeprefix("Live2Diff: ") in notices.text
