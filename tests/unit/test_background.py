"""Stages side by side: order, back-pressure, errors, and no thread left behind."""

import threading
import time

import pytest
import torch

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


def test_an_error_of_the_reader_does_not_wait_for_more_items():
    made = []

    def source():
        for index in range(50):
            time.sleep(0.05)
            made.append(index)
            yield index

    with pytest.raises(KeyError), Prefetch(source(), ahead=20) as items:
        assert next(iter(items)) == 0
        raise KeyError("the reader's")
    assert len(made) < 10 and not ours()


def test_threads_are_in_inference_mode():
    modes = []

    def source():
        yield torch.is_inference_mode_enabled()

    with Prefetch(source(), ahead=1) as items, BackgroundCalls(ahead=1) as calls:
        calls.submit(lambda: modes.append(torch.is_inference_mode_enabled()))
        calls.wait()
        assert [*items, *modes] == [True, True]
    assert not torch.is_inference_mode_enabled()


def test_seconds_at_work_are_counted():
    def source():
        yield time.sleep(0.1)

    with Prefetch(source(), ahead=2) as items, BackgroundCalls(ahead=2) as calls:
        assert [*items] == [None]
        for _ in range(3):
            calls.submit(lambda: time.sleep(0.05))
        calls.wait()
    assert items.busy_seconds >= 0.1 and calls.busy_seconds >= 0.15


def test_calls_run_in_order_before_leaving():
    done = []
    with BackgroundCalls(ahead=2) as calls:
        for index in range(30):
            calls.submit(lambda index=index: done.append(index))
        calls.wait()
        assert done == list(range(30))
        calls.submit(lambda: done.append("last"))
    assert done[-1] == "last" and not ours()


def test_submit_blocks_while_too_many_calls_wait():
    gate, submitted = threading.Event(), []

    def submit_all(calls):
        for index in range(8):
            calls.submit(gate.wait)
            submitted.append(index)

    with BackgroundCalls(ahead=3) as calls:
        thread = threading.Thread(target=submit_all, args=(calls,))
        thread.start()
        time.sleep(0.3)
        before = len(submitted)
        gate.set()
        thread.join()
    assert before == 4  # one runs, three wait
    assert len(submitted) == 8 and not ours()


def test_calls_that_wait_run_after_an_error_of_the_caller():
    done = []
    with pytest.raises(KeyError), BackgroundCalls(ahead=4) as calls:
        calls.submit(lambda: time.sleep(0.2))
        for index in range(3):
            calls.submit(lambda index=index: done.append(index))
        raise KeyError("the caller's")
    assert done == [0, 1, 2] and not ours()


@pytest.mark.parametrize("late", [True, False])
def test_an_error_stops_the_calls_and_comes_back(late):
    done, gate = [], threading.Event()

    def fail():
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), BackgroundCalls(ahead=8) as calls:
        calls.submit(gate.wait)
        calls.submit(fail)
        calls.submit(lambda: done.append("after"))
        gate.set()
        if not late:
            calls.wait()
    assert not done and not ours()


def test_the_error_of_a_call_comes_back_every_time():
    calls = BackgroundCalls(ahead=1)
    calls.submit(lambda: 1 / 0)
    for again in (calls.wait, lambda: calls.submit(print), calls.wait):
        with pytest.raises(ZeroDivisionError):
            again()
    with pytest.raises(ZeroDivisionError), calls:
        pass
    assert not ours()


def test_the_first_error_wins_over_the_threads():
    with pytest.raises(KeyError), BackgroundCalls(ahead=2) as calls:
        calls.submit(lambda: 1 / 0)
        time.sleep(0.1)
        raise KeyError("the user's")
    assert not ours()
