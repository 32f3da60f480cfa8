"""A changed bit anywhere in a saved state is noticed; states of version 0.1.0 have no checksum."""

import random

import pytest
import torch
from safetensors.torch import save_file

from live2diff_core.run.checksum import checksum
from live2diff_core.run.state_file import (
    FORMAT,
    UnusableStateError,
    load_state,
    read_state,
    save_state,
)

STATE = {
    "cache": torch.arange(48.0).half().reshape(2, 3, 8),
    "brain": torch.arange(5.0).bfloat16(),
    "times": torch.arange(8).reshape(2, 4),
    "count": torch.tensor(3),
    "none": torch.zeros(0, 4, dtype=torch.int64),
    "flags": torch.tensor([True, False, True]),
}
SETTINGS = {"seed": 7, "size": "64x64"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "state"
    save_state(path, STATE, SETTINGS)
    return path


def equal(state):
    return state.keys() == STATE.keys() and all(
        state[name].dtype == STATE[name].dtype and torch.equal(state[name], STATE[name])
        for name in STATE
    )


def test_what_was_written_is_read(file):
    assert equal(load_state(file, SETTINGS))


def test_every_changed_byte_is_noticed_or_of_no_account(file):
    """One bit of each byte; in the padding of the header, and where it names no tensor, it may
    be that nothing changes."""
    data, generator, unnoticed = file.read_bytes(), random.Random(0), 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << generator.randrange(8)
        file.write_bytes(damaged)
        try:
            state, settings = read_state(file)
        except UnusableStateError as error:
            assert "damaged" in str(error) or "not a saved stream" in str(error)
            continue
        assert equal(state) and settings == SETTINGS
        unnoticed += 1
    # The name of the checksum itself, say.
    assert unnoticed < 30


@pytest.mark.parametrize("change", ["value", "name", "type", "shape", "settings"])
def test_everything_counts(change):
    state, settings = dict(STATE), "{}"
    before = checksum(settings, state)
    if change == "value":
        state["cache"] = state["cache"].clone()
        state["cache"][1, 2, 3] = -state["cache"][1, 2, 3]
    elif change == "name":
        state["cachf"] = state.pop("cache")
    elif change == "type":
        state["cache"] = state["cache"].view(torch.bfloat16)
    elif change == "shape":
        state["cache"] = state["cache"].view(3, 2, 8)
    else:
        settings = "{ }"
    assert checksum(settings, state) != before


def test_order_does_not_count():
    assert checksum("", STATE) == checksum("", dict(reversed(STATE.items())))


def test_a_state_without_one_is_read(tmp_path):
    path = tmp_path / "old"
    metadata = {"format": FORMAT, "settings": '{"seed": 7, "size": "64x64"}'}
    save_file(STATE, str(path), metadata)
    assert equal(load_state(path, SETTINGS))
