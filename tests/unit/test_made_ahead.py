"""Random tensors made ahead: the same as made in place, and by another thread."""

import threading

import pytest
import torch

from live2diff_core.stream.made_ahead import THREAD, MadeAhead

CPU = torch.device("cpu")


class Maker:
    """Makes [1] tensors of its keys, and notes the thread."""

    def __init__(self):
        self.made = []

    def __call__(self, key):
        self.made.append((key, threading.current_thread().name))
        if key < 0:
            raise ValueError("negative")
        return torch.full((1,), float(key))


def test_expected_is_made_on_the_other_thread_and_once():
    maker = Maker()
    ahead = MadeAhead(maker)
    ahead.expect([3, 4], CPU)
    assert [ahead.take(key, CPU).item() for key in (3, 4)] == [3, 4]
    assert maker.made == [(3, THREAD), (4, THREAD)]


def test_unexpected_is_made_here():
    maker = Maker()
    ahead = MadeAhead(maker)
    ahead.expect([3], CPU)
    assert ahead.take(5, CPU).item() == 5
    assert (5, threading.current_thread().name) in maker.made


def test_what_is_still_expected_is_not_made_again():
    maker = Maker()
    ahead = MadeAhead(maker)
    ahead.expect([3, 4], CPU)
    ahead.expect([4, 5], CPU)
    assert [ahead.take(key, CPU).item() for key in (4, 5, 3)] == [4, 5, 3]
    assert [key for key, _ in maker.made].count(4) == 1


def test_an_error_comes_where_the_tensor_is_taken():
    ahead = MadeAhead(Maker())
    ahead.expect([-1, 2], CPU)
    assert ahead.take(2, CPU).item() == 2
    with pytest.raises(ValueError, match="negative"):
        ahead.take(-1, CPU)


def test_nobody_waits_for_an_abandoned_one():
    """The thread ends with its owner."""
    before = threading.active_count()
    for _ in range(20):
        MadeAhead(Maker()).expect([1], CPU)
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(5)
    assert threading.active_count() <= before
