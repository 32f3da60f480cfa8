"""Prompts that change while a stream runs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.stream.live_prompts import LiveTimeline, change_prompt
from live2diff_core.stream.prompt_timeline import PromptChange, PromptTimeline
from live2diff_core.stream.prompt_track import KEY, PromptTrack, follow


def text(value):
    return [[torch.full((1, 77, 8), float(value)), {}]]


def shown(prompt, frame):
    (value, extra) = prompt[0]
    return (extra[KEY].text(frame) if KEY in extra else value)[0, 0, 0].item()


def test_a_change_of_a_stream_that_has_not_begun_replaces_its_prompt():
    assert shown(change_prompt(text(0), text(5), 0, 3, 0), 0) == 5


def test_a_change_blends_in_and_stays():
    changed = change_prompt(text(0), text(4), 10, 3, 9)
    assert [shown(changed, frame) for frame in (9, 10, 11, 12, 13, 90)] == [0, 1, 2, 3, 4, 4]


def test_a_change_amid_a_blend_begins_from_the_mixture_and_frames_inside_keep_theirs():
    first = change_prompt(text(0), text(4), 10, 3, 9)
    second = change_prompt(first, text(100), 12, 0, 11)
    assert [shown(second, frame) for frame in (10, 11, 12)] == [1, 2, 100]
    slow = change_prompt(first, text(100), 12, 1, 11)
    assert [shown(slow, frame) for frame in (11, 12, 13)] == [2, (3 + 100) / 2, 100]


def test_what_a_schedule_had_planned_later_is_left_out():
    planned = follow(text(0), text(7), PromptChange(50))
    changed = change_prompt(planned, text(3), 20, 0, 19)
    assert [shown(changed, frame) for frame in (19, 20, 60)] == [0, 3, 3]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 6)), min_size=1, max_size=60))
def test_a_thousand_changes_hold_no_more_than_what_is_inside(changes):
    prompt, whole, frame, kept = text(0), [], 0, 0
    for value, (gap, blend) in enumerate(changes, 1):
        frame += gap
        prompt = change_prompt(prompt, text(value), frame, blend, frame - 2)
        whole.append(PromptChange(frame, blend))
        every = PromptTrack(
            tuple(text(v)[0][0] for v in range(value + 1)), LiveTimeline(tuple(whole))
        )
        for at in range(frame - 1, frame + 8):
            assert shown(prompt, at) == pytest.approx(every.text(at)[0, 0, 0].item(), rel=1e-5)
        kept = max(kept, len(prompt[0][1][KEY].texts))
    assert kept <= 12


def test_without_overlaps_it_is_the_timeline_of_a_schedule():
    changes = (PromptChange(3, 2), PromptChange(8))
    for frame in range(12):
        assert LiveTimeline(changes).weights(frame) == PromptTimeline(changes).weights(frame)
