"""The registry of live streams: by name, by age, by size; nothing mixes."""

import threading
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live2diff_core.run.registry import StreamInfo, StreamRegistry


@dataclass
class Stream:
    name: str
    nbytes: int = 100
    handle: object = None


class Clock:
    def __init__(self):
        self.now = 1000.0
        self.timers = []

    def __call__(self):
        return self.now

    def later(self, seconds, call):
        self.timers.append((self.now + seconds, call))

    def advance(self, seconds):
        """Let time pass; timers fire when they are due."""
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for _, call in due:
            call()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def registry(clock):
    return StreamRegistry(clock, clock.later)


def names(registry):
    return [info.name for info in registry.streams()]


def test_streams_are_kept_by_name(registry):
    first, second = Stream("a"), Stream("b")
    registry.put(first)
    registry.put(second)
    assert registry.get("a") is first and registry.get("b") is second
    replaced = Stream("a")
    registry.put(replaced)
    assert registry.get("a") is replaced and registry.get("b") is second
    assert registry.remove("a") and not registry.remove("a")
    assert registry.get("a") is None and registry.clear() == ["b"] and registry.streams() == []


def test_list_says_size_and_idle_time(registry, clock):
    registry.put(Stream("a", 3_200_000))
    clock.advance(12)
    registry.put(Stream("b", 1_520_000_000))
    assert [str(info) for info in registry.streams()] == [
        "b: 1.52 GB, idle for 0 s",
        "a: 3.2 MB, idle for 12 s",
    ]
    assert str(StreamInfo("a", 0, 300)).endswith("idle for 5 min")


def test_idle_streams_are_dropped_each_by_its_own_limit(registry, clock):
    registry.put(Stream("short"), 10)
    registry.put(Stream("long"), 100)
    registry.put(Stream("for ever"), 0)
    clock.now += 9.9
    assert registry.drop_idle() == []
    clock.now += 0.1
    assert registry.drop_idle() == ["short"]
    clock.now += 1e6
    assert registry.drop_idle() == ["long"]
    assert names(registry) == ["for ever"]


def test_a_timer_drops_them_when_nobody_asks(registry, clock):
    registry.put(Stream("a"), 60)
    registry.put(Stream("b"), 90)
    clock.advance(30)
    registry.put(registry.get("a"), 60)  # used again
    clock.advance(30)
    assert sorted(names(registry)) == ["a", "b"]
    clock.advance(30)
    assert names(registry) == []
    clock.advance(1e6)
    assert clock.timers == []
    registry.put(Stream("a"), 5)
    clock.advance(5)
    assert names(registry) == []


def test_only_one_timer_waits(registry, clock):
    for _ in range(100):
        registry.put(Stream("a"), 60)
    assert len(clock.timers) == 1


def test_a_stream_at_work_is_not_idle(registry, clock):
    registry.put(Stream("a"), 10)
    with registry.working_on("a"):
        clock.advance(1000)
        assert registry.drop_idle() == []
        assert registry.make_room("b", 1000, 1) == []
    clock.advance(9)
    assert names(registry) == ["a"]
    clock.advance(1)
    assert names(registry) == []


def test_an_error_at_work_leaves_the_stream_droppable(registry, clock):
    registry.put(Stream("a"), 10)
    with pytest.raises(InterruptedError), registry.working_on("a"):
        raise InterruptedError
    clock.advance(10)
    assert names(registry) == []


def test_least_recently_used_go_first(registry, clock):
    for name in "abcd":
        registry.put(Stream(name, 100))
        clock.now += 1
    registry.put(registry.get("a"))
    assert registry.make_room("d", 100, 400) == []
    assert registry.make_room("d", 100, 0) == []
    assert registry.make_room("d", 200, 400) == ["b"]
    assert registry.make_room("new", 150, 250) == ["c", "d"]
    assert names(registry) == ["a"]


def test_the_wanted_stream_stays_however_large(registry):
    registry.put(Stream("a", 1000))
    registry.put(Stream("b", 1))
    assert registry.make_room("a", 1000, 10) == ["b"]
    assert names(registry) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 100)), max_size=30))
def test_the_total_never_passes_the_limit(uses):
    clock = Clock()
    registry = StreamRegistry(clock, clock.later)
    limit = 120
    for name, size in uses:
        clock.now += 1
        registry.make_room(name, size, limit)
        registry.put(Stream(name, size))
        assert sum(info.nbytes for info in registry.streams()) <= limit
        assert registry.streams()[0] == StreamInfo(name, size, 0.0)


def test_threads_do_not_disturb_each_other():
    registry, errors = StreamRegistry(), []

    def work(name):
        try:
            for _ in range(200):
                registry.put(Stream(name), 60)
                with registry.working_on(name):
                    registry.make_room(name, 100, 1000)
                    assert registry.get(name).name == name
                registry.streams()
                registry.drop_idle()
                registry.remove(name)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and registry.streams() == []
