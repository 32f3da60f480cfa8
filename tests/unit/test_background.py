"""Stages side by side: order, back-pressure, errors, and no thread left behind."""

import threading
import time

import pytest

from live2diff_core.run.background import BackgroundCalls, Prefetch


def ours():
    return [t for t in threading.enumerate() if t.name.startswith("live2diff")]


def test_prefetch_keeps_order_and_stays_bounded():
    made = []

    def source():
        for index in range(50):
            made.append(index)
            yield index

    with Prefetch(source(), ahead=3) as items:
        iterator = iter(items)
        assert next(iterator) == 0
        time.sleep(0.3)
        assert len(made) <= 6  # taken, three waiting, one in hand, and no more
        assert [0, *iterator] == list(range(50))
    assert not ours()


def test_prefetch_hands_on_the_error_in_its_place():
    def source():
        yield 1
        raise OSError("gone")

    with Prefetch(source(), ahead=4) as items:
        iterator = iter(items)
        assert next(iterator) == 1
        with pytest.raises(OSError, match="gone"):
            next(iterator)


def test_prefetch_can_be_left_early():
    with Prefetch(iter(range(10**9)), ahead=2) as items:
        assert next(iter(items)) == 0
    assert not ours()


def test_calls_run_in_order_before_leaving():
    done = []
    with BackgroundCalls(ahead=2) as calls:
        for index in range(30):
            calls.submit(lambda index=index: done.append(index))
        calls.wait()
        assert done == list(range(30))
        calls.submit(lambda: done.append("last"))
    assert done[-1] == "last" and not ours()


@pytest.mark.parametrize("late", [True, False])
def test_an_error_stops_the_calls_and_comes_back(late):
    done = []

    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), BackgroundCalls(ahead=8) as calls:
        calls.submit(fail)
        calls.submit(lambda: done.append("after"))
        if not late:
            calls.wait()
    assert not done and not ours()


def test_the_first_error_wins_over_the_threads():
    with pytest.raises(KeyError), BackgroundCalls(ahead=2) as calls:
        calls.submit(lambda: 1 / 0)
        time.sleep(0.1)
        raise KeyError("the user's")
    assert not ours()
