"""Latents of a clip are written as they come, each waited for after the next one is queued."""

import pytest
import torch

from live2diff_core.run import clip
from live2diff_core.run.clip import write_frames
from live2diff_core.stream.faults import MODEL, no_fault
from live2diff_core.stream.transfer import HostCopy


@pytest.fixture
def log(monkeypatch):
    """("queued", n) when frame n has been made, and ("waited", n)."""
    found = []

    class Watched(HostCopy):
        def get(self):
            frame = super().get()
            found.append(("waited", int(frame[0])))
            return frame

    monkeypatch.setattr(clip, "HostCopy", Watched)
    return found


def made(count, log):
    for number in range(count):
        log.append(("queued", number))
        yield torch.full((3,), float(number)), no_fault(None)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_all_frames_are_written_in_order(log, count, dtype):
    output = torch.full((count, 3), -1.0, dtype=dtype)
    write_frames(made(count, log), output, lambda x0: x0, lambda *_: None)
    assert output.dtype == dtype and output[:, 2].tolist() == [*range(count)]


def test_a_frame_is_waited_for_when_the_next_one_is_queued(log):
    write_frames(made(4, log), torch.empty(4, 3), lambda x0: x0, lambda *_: None)
    queued, waited = ([log.index((what, n)) for n in range(4)] for what in ("queued", "waited"))
    assert all(waited[n] > queued[n + 1] for n in range(3)) and waited[3] > queued[3]
    # And no later than that, so that little is on its way.
    assert all(waited[n] < queued[n + 2] for n in range(2))


def test_frames_are_converted_and_shown_as_they_arrive(log):
    output, shown = torch.empty(3, 3), []
    write_frames(made(3, log), output, lambda x0: x0 * 2, lambda *told: shown.append(told))
    assert output[:, 0].tolist() == [0, 2, 4]
    assert [(done, x0[0].item()) for done, x0 in shown] == [(1, 0), (2, 1), (3, 2)]


def test_a_lost_frame_is_named_once_and_all_are_counted(caplog):
    caplog.set_level("INFO")
    lost = torch.tensor(MODEL, dtype=torch.uint8)
    frames = [(torch.zeros(3), fault) for fault in (no_fault(None), lost, lost)]
    write_frames(frames, torch.empty(3, 3), lambda x0: x0, lambda *_: None)
    first, last = [record.message for record in caplog.records]
    assert "frame 1 came out as NaN" in first and "2 frames came out as NaN" in last
    assert "the UNet" in first and "--force-fp32" in last
