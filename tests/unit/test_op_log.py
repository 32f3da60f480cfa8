"""The log of operations sees what it is for, in every thread but one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from op_log import NOISE_THREAD, OpLog, shortest_period


@torch.inference_mode()
def logged(*frames, calls=1):
    """Log functions, each as a frame with one call of the UNet."""
    log = OpLog()
    with log.installed():
        for frame in frames:
            with log.segment():
                for _ in range(calls):
                    log.count_call()
                frame()
    return log


def tensor(*shape):
    return torch.ones(*shape) > 0


WAITING = {
    "item": lambda: torch.ones(1).item(),
    "is_nonzero": lambda: bool(torch.ones(1)),
    "equal": lambda: torch.equal(torch.ones(1), torch.ones(1)),
    "nonzero": lambda: torch.ones(2).nonzero(),
    "masked_select": lambda: torch.ones(2).masked_select(tensor(2)),
    "index.Tensor": lambda: torch.ones(2)[tensor(2)],
    "index_put": lambda: torch.ones(2).index_put_((tensor(2),), torch.ones(2)),
}


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_named_with_its_line(name):
    (problem,) = logged(WAITING[name], WAITING[name]).problems()
    assert name in problem and "2 times" in problem and "tests/unit/test_op_log.py" in problem


def test_what_does_not_wait_is_left_alone():
    index = torch.tensor([1, 0])

    def frame():
        values = torch.ones(2, dtype=torch.bool)
        torch.zeros(2, dtype=torch.bool).index_put_((index,), values)
        torch.where(tensor(2), 1.0, 0.0)[index]
        torch.tensor([1, 2])

    assert logged(frame, frame).problems() == []


def test_tensors_made_of_lists_are_counted_per_call():
    def frame():
        torch.tensor([1])
        torch.ones(3)[[0, 1]]

    assert logged(frame, frame, calls=2).problems() == []
    (problem,) = logged(frame, frame).problems()
    assert "lift_fresh.default 2 times in frame 1 with 1 calls" in problem


@pytest.mark.parametrize(
    "other",
    [
        lambda: torch.ones(3),
        lambda: torch.ones(2, dtype=torch.float64),
        lambda: torch.zeros(2),
        lambda: (torch.ones(2), torch.ones(2)),
    ],
    ids=["shape", "dtype", "operation", "one more"],
)
def test_a_change_from_frame_to_frame_is_found(other):
    def one():
        torch.ones(2)

    (problem,) = logged(one, one, other).problems()
    assert problem.startswith("frames 1 and 2 differ in operation")
    assert logged(one, other, one, other).problems(period=2) == []


def test_threads_are_watched_but_for_the_noise_maker():
    def work():
        torch.ones(1).item()

    def named():
        # As the noise maker's executor does it, when the thread runs already.
        threading.current_thread().name = NOISE_THREAD

    def frame(**options):
        with ThreadPoolExecutor(1, **options) as executor:
            executor.submit(work).result()

    # Outside of inference mode, where this thread is, `.item()` has another name.
    assert "_local_scalar_dense" in logged(frame).problems()[0]
    assert logged(lambda: frame(initializer=named)).problems() == []


def test_nothing_is_recorded_between_the_frames():
    log = OpLog()
    with log.installed():
        torch.ones(1).item()
        with log.segment():
            torch.ones(2)
        torch.ones(1).item()
    assert len(log.segments[0]) == 1 and log.problems() == []


def test_shortest_period():
    assert [shortest_period(word) for word in ("", "a", "abab", "aba", "abcabca", "abc")] == [
        0,
        1,
        2,
        2,
        3,
        3,
    ]
