"""The parts of a live stream: its slot, settings, sizes, rates and addresses."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.live.controls import (
    CONTROLS,
    LARGEST_SEED,
    Change,
    ControlError,
    PendingChanges,
    checked,
)
from live2diff_core.live.meter import Rate, Times
from live2diff_core.live.sizing import LiveSize
from live2diff_core.live.slot import NewestSlot

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def test_a_newer_item_replaces_an_older_one():
    slot = NewestSlot()
    assert slot.put(1) is None and slot.put(2) == 1
    assert slot.take() == 2 and slot.take() is None


def test_taking_waits_for_an_item():
    slot = NewestSlot()
    threading.Timer(0.05, slot.put, ["late"]).start()
    assert slot.take(30) == "late"


@given(st.sampled_from([*CONTROLS, "other"]), JSON)
def test_no_value_passes_that_a_recording_could_not_keep(control, value):
    try:
        kept = checked(control, value)
    except ControlError as error:
        assert str(error) and error.remedy and error.code in ("value", "message")
    else:
        assert checked(control, json.loads(json.dumps(kept))) == kept


@pytest.mark.parametrize(
    ("control", "value", "kept"),
    [
        ("seed", str(LARGEST_SEED), str(LARGEST_SEED)),
        ("seed", 7, "7"),
        ("cfg", 2, 2.0),
        ("steps", 4.0, 4),
        ("prompt", {"text": "a"}, {"text": "a", "blend": 0}),
        ("cut", True, True),
    ],
)
def test_a_value_is_kept_in_one_form(control, value, kept):
    assert checked(control, value) == kept


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("seed", str(LARGEST_SEED + 1)),
        ("seed", -1),
        ("seed", "٣"),
        ("cfg", True),
        ("cfg", float("nan")),
        ("steps", 0),
        ("steps", 2.5),
        ("denoise", 0),
        ("prompt", "a"),
        ("prompt", {"text": "a" * 5000}),
        ("prompt", {"text": "a", "blend": -1}),
        ("cut", 1),
    ],
)
def test_a_value_out_of_range_is_refused(control, value):
    with pytest.raises(ControlError):
        checked(control, value)


def test_of_one_setting_the_newest_value_waits_and_of_several_all_do():
    pending = PendingChanges()
    assert not pending
    for control, value in [("cut", True), ("cfg", 1.0), ("prompt", "x"), ("cfg", 2.0)]:
        pending.put(Change(control, value))
    assert [(c.control, c.value) for c in pending.take()] == [
        ("prompt", "x"),
        ("cfg", 2.0),
        ("cut", True),
    ]
    assert pending.take() == []


def test_a_rate_is_that_of_the_last_seconds():
    now = [0.0]
    rate = Rate(lambda: now[0])
    for step in range(50):
        now[0] = step / 25
        rate()
    assert rate.value == pytest.approx(25, abs=0.5)
    now[0] = 60.0
    assert rate.value == 0


def test_times_have_a_median_and_a_95th_percentile():
    times = Times()
    assert times.median() is None and times.p95() is None
    for value in range(100):
        times(float(value))
    assert times.median() == 49.5 and times.p95() == 95


def picture(width, height):
    return np.zeros((height, width, 3), np.uint8)


def test_filled_frames_have_the_size_asked_for_whatever_comes():
    size = LiveSize("fill", 64, 48)
    assert size.size == (64, 48)
    for width, height in [(640, 480), (100, 400), (64, 48)]:
        assert size(picture(width, height)).shape == (48, 64, 3)


def test_the_first_frame_decides_where_the_size_is_its_own():
    size = LiveSize("keep", 0, 0)
    assert size.size is None
    assert size(picture(101, 60)).shape == (56, 96, 3) and size.size == (96, 56)
    assert size(picture(50, 200)).shape == (56, 96, 3)
