"""Transfers keep their values, and on CUDA wait only where somebody asks for the result."""

import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from live2diff_core.stream import transfer
from live2diff_core.stream.transfer import HostCopy, upload

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class FakeEvent:
    """Notes what is asked of it in `log`; `passed` is when the copy is done."""

    def __init__(self, log, passed=None):
        self.log, self.passed = log, passed

    def record(self, stream):
        self.log.append("recorded")

    def synchronize(self):
        self.log.append("waited")
        if self.passed is not None:
            assert self.passed.wait(20)


@pytest.fixture
def pretended(monkeypatch):
    """Copies as those of a CUDA device: (log, arrived); the copies are done when that is set."""
    log, arrived = [], threading.Event()
    # What the pinned memory holds once the copy is done.
    pinned = iter([torch.tensor([3.0]), torch.tensor(False)])

    def copied(tensor):
        log.append("queued")
        return next(pinned)

    monkeypatch.setattr(transfer, "_queues_copies", lambda device: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: FakeEvent(log, arrived))
    monkeypatch.setattr(transfer, "_pinned_copy", copied)
    return log, arrived


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bool])
def test_nothing_changes_on_the_way(dtype):
    tensor = torch.arange(12).view(3, 4).to(dtype)
    there = upload(tensor, CPU)
    copy = HostCopy(there, torch.tensor(True))
    assert there.dtype == copy.get().dtype == dtype
    assert torch.equal(copy.get(), tensor) and copy.finite
    assert copy.get() is copy.get()


@pytest.mark.parametrize("flag, finite", [(True, True), (False, False), (None, True)])
def test_a_copy_knows_whether_it_is_finite(flag, finite):
    copy = HostCopy(torch.zeros(2), None if flag is None else torch.tensor(flag))
    assert copy.finite is finite


def test_a_copy_waits_once_and_only_when_it_is_asked(pretended):
    log, arrived = pretended
    copy = HostCopy(torch.zeros(1), torch.tensor(True))
    assert log == ["queued", "queued", "recorded"]
    arrived.set()
    assert copy.get().tolist() == [3.0] and not copy.finite
    assert copy.get() is copy.get()
    assert log[3:] == ["waited"]


def test_several_threads_may_wait_for_a_copy(pretended):
    log, arrived = pretended
    copy, found = HostCopy(torch.zeros(1), torch.tensor(True)), []
    threads = [threading.Thread(target=lambda: found.append(copy.get())) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert not found
    arrived.set()
    for thread in threads:
        thread.join()
    assert len({id(tensor) for tensor in found}) == 1 and log.count("waited") == 1


class Moves(TorchDispatchMode):
    """Notes the dtype of what is moved to CUDA, and whether that waits."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        moved = func is torch.ops.aten._to_copy.default and kwargs.get("device")
        if moved and moved.type == "cuda":
            self.found.append((args[0].dtype, kwargs.get("non_blocking", False)))
        return func(*args, **kwargs)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_uploads_are_pinned_and_do_not_wait(monkeypatch, dtype):
    pinned = []
    monkeypatch.setattr(transfer, "_queues_copies", lambda device: device.type == "cuda")
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self) or self)
    with FakeTensorMode(), Moves() as moves:
        tensor = torch.empty(4, 4, 3, dtype=dtype)
        there = upload(tensor, CUDA)
        assert upload(there, CUDA) is there
    assert there.device.type == "cuda" and there.dtype == dtype
    assert moves.found == [(dtype, True)] and len(pinned) == 1 and pinned[0] is tensor


def test_other_devices_get_plain_copies(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", None)
    assert upload(torch.zeros(2, dtype=torch.uint8), torch.device("meta")).dtype == torch.uint8
    with FakeTensorMode():
        # Where there is no CUDA, a device of that name is a pretended one.
        if not torch.cuda.is_available():
            assert HostCopy(upload(torch.zeros(2), CUDA)).get().device == CPU


@on_cuda
def test_a_real_device_never_waits_on_the_way():
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = upload(torch.arange(1000, dtype=torch.uint8), CUDA)
        copies = [HostCopy(there + n, torch.isfinite(there.float()).all()) for n in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for number, copy in enumerate(copies):
        assert torch.equal(copy.get(), torch.arange(1000).add(number).to(torch.uint8))
        assert copy.finite and not copy.get().is_pinned()
