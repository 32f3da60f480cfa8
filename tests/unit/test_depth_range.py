"""Properties of the depth ranges: bounds, formulas, causality, and state as a value."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from live2diff_core.depth.ranges import (
    MODES,
    RunningRange,
    normalise,
    normalise_per_clip,
    normalise_per_frame,
    normalise_running,
)


@pytest.fixture
def raw() -> torch.Tensor:
    """Twelve frames whose range drifts, jumps up at 5, falls back at 9, reaches lower at 10."""
    generator = torch.Generator().manual_seed(3)
    frames = torch.rand(12, 6, 10, generator=generator) * 20.0 + 5.0
    frames += torch.arange(12.0)[:, None, None]
    frames[5:9] *= 3.0
    frames[10] -= 25.0
    return frames


@pytest.mark.parametrize("mode", MODES)
def test_output_keeps_the_shape_and_lies_in_0_to_1(raw: torch.Tensor, mode: str) -> None:
    depth = normalise(raw, mode)
    assert depth.shape == raw.shape
    assert depth.dtype == torch.float32
    assert depth.min() >= 0.0
    assert depth.max() <= 1.0
    assert depth.std() > 0.05


@pytest.mark.parametrize("mode", MODES)
def test_nearer_stays_brighter(raw: torch.Tensor, mode: str) -> None:
    frame = torch.arange(60.0).reshape(1, 6, 10)
    depth = normalise(frame, mode).flatten()
    assert torch.all(depth[1:] > depth[:-1])


def test_per_frame_is_each_frames_own_min_and_max(raw: torch.Tensor) -> None:
    expected = torch.stack([(frame - frame.min()) / (frame.max() - frame.min()) for frame in raw])
    torch.testing.assert_close(normalise_per_frame(raw), expected)


def test_per_clip_is_one_min_and_max(raw: torch.Tensor) -> None:
    torch.testing.assert_close(normalise_per_clip(raw), (raw - raw.min()) / (raw.max() - raw.min()))


def test_running_follows_its_recurrence(raw: torch.Tensor) -> None:
    low, high = raw[0].min().item(), raw[0].max().item()
    expected = []
    for index, frame in enumerate(raw):
        if index:
            frame_low, frame_high = frame.min().item(), frame.max().item()
            low += (0.5 if frame_low < low else 0.05) * (frame_low - low)
            high += (0.5 if frame_high > high else 0.05) * (frame_high - high)
        expected.append(((frame - low) / (high - low)).clamp(0.0, 1.0))
    depth, state = normalise_running(raw, RunningRange())
    torch.testing.assert_close(depth, torch.stack(expected))
    assert (state.low, state.high, state.frames) == (pytest.approx(low), pytest.approx(high), 12)


def test_running_starts_with_the_first_frames_own_range(raw: torch.Tensor) -> None:
    assert torch.equal(normalise(raw, "running")[0], normalise_per_frame(raw)[0])


def test_running_never_looks_ahead(raw: torch.Tensor) -> None:
    changed = raw.clone()
    changed[7:] = changed[7:] * -5.0 + 100.0
    before, after = normalise(raw, "running"), normalise(changed, "running")
    assert torch.equal(before[:7], after[:7])
    assert not torch.equal(before[7:], after[7:])


@pytest.mark.parametrize("sizes", [[1] * 12, [5, 7], [3, 1, 8], [11, 1]])
def test_running_does_not_depend_on_the_chunks(raw: torch.Tensor, sizes: list[int]) -> None:
    whole, last = normalise_running(raw, RunningRange())
    state, parts = RunningRange(), []
    for chunk in raw.split(sizes):
        depth, state = normalise_running(chunk, state)
        parts.append(depth)
    assert torch.equal(torch.cat(parts), whole)
    assert state == last


def test_running_resumes_from_a_saved_state(raw: torch.Tensor) -> None:
    whole, last = normalise_running(raw, RunningRange(widen=0.7, narrow=0.2))
    _, state = normalise_running(raw[:6], RunningRange(widen=0.7, narrow=0.2))
    restored = RunningRange.from_state_dict(state.state_dict())
    assert restored == state
    depth, end = normalise_running(raw[6:], restored)
    assert torch.equal(depth, whole[6:])
    assert end == last


def test_a_fresh_range_survives_the_round_trip() -> None:
    assert RunningRange.from_state_dict(RunningRange().state_dict()) == RunningRange()


def test_a_state_with_missing_entries_is_refused() -> None:
    state = RunningRange().state_dict()
    del state["high"]
    with pytest.raises(ValueError, match="lacks high"):
        RunningRange.from_state_dict(state)


def test_running_is_steadier_than_per_frame() -> None:
    """A near object that flashes up for one frame must not move the depth of the background."""
    raw = torch.linspace(1.0, 10.0, 60).reshape(1, 6, 10).repeat(9, 1, 1)
    raw[4, 0, 0] = 14.0
    running, own = normalise(raw, "running"), normalise_per_frame(raw)
    background = (slice(None), slice(3, None), slice(None))
    assert running[background].diff(dim=0).abs().max() < own[background].diff(dim=0).abs().max()


def test_running_with_full_shares_is_per_frame(raw: torch.Tensor) -> None:
    depth, _ = normalise_running(raw, RunningRange(widen=1.0, narrow=1.0))
    torch.testing.assert_close(depth, normalise_per_frame(raw))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [0.0, 7.3, -2.0, 1e4])
def test_a_constant_frame_gives_zeros(mode: str, value: float) -> None:
    assert torch.equal(normalise(torch.full((2, 4, 4), value), mode), torch.zeros(2, 4, 4))


def test_rounding_noise_on_a_constant_frame_is_not_stretched() -> None:
    noisy = torch.full((1, 4, 4), 1000.0)
    noisy[0, 0, 0] += 1e-4
    assert torch.equal(normalise_per_frame(noisy), torch.zeros(1, 4, 4))


def test_a_constant_frame_inside_a_stream_keeps_its_place(raw: torch.Tensor) -> None:
    _, state = normalise_running(raw[:3], RunningRange())
    middle = (state.low + state.high) / 2
    depth, _ = normalise_running(torch.full((1, 6, 10), middle), state)
    assert 0.4 < depth.mean() < 0.6


@pytest.mark.parametrize("shares", [{"widen": 0.0}, {"widen": 1.1}, {"narrow": -0.1}])
def test_shares_outside_their_bounds_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="widen|narrow"):
        RunningRange(**shares)


def test_an_unknown_mode_is_refused(raw: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="per_video.*running"):
        normalise(raw, "per_video")


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_read_back_from_the_device(mode: str) -> None:
    """A pretended device has no values, so reading one raises."""
    with FakeTensorMode():
        raw = torch.empty(3, 6, 10, device="cuda")
        assert normalise(raw, mode).device.type == "cuda"


def test_a_range_stays_on_the_device() -> None:
    saved = {name: value.double() for name, value in RunningRange(frames=4).state_dict().items()}
    state = RunningRange.from_state_dict(saved)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for _ in range(2):
            depth, state = normalise_running(torch.empty(1, 6, 10, device="cuda"), state)
        assert {end.device.type for end in (depth, state.low, state.high)} == {"cuda"}
        assert state.low.dtype == state.high.dtype == torch.float32
    assert state.frames == 6


def test_a_state_of_an_earlier_version_goes_on(raw: torch.Tensor) -> None:
    """Version 0.1.0 saved all numbers but the frames in float64."""
    whole, _ = normalise_running(raw, RunningRange())
    _, state = normalise_running(raw[:6], RunningRange())
    old = {
        name: value.to(torch.int64 if name == "frames" else torch.float64)
        for name, value in state.state_dict().items()
    }
    restored = RunningRange.from_state_dict(old)
    assert restored == state and restored.low.dtype == torch.float32
    assert torch.equal(normalise_running(raw[6:], restored)[0], whole[6:])


def test_the_range_is_that_of_float64_to_the_rounding(raw: torch.Tensor) -> None:
    """Over a long stream, too: rounding errors fade as the frames that made them."""
    low = high = None
    state = RunningRange()
    for index in range(600):
        frame = raw[index % 12 : index % 12 + 1] * (1 + index / 300)
        _, state = normalise_running(frame, state)
        own_low, own_high = frame.min().item(), frame.max().item()
        if low is None:
            low, high = own_low, own_high
        low += (0.5 if own_low < low else 0.05) * (own_low - low)
        high += (0.5 if own_high > high else 0.05) * (own_high - high)
    assert state.low.item() == pytest.approx(low, rel=1e-5)
    assert state.high.item() == pytest.approx(high, rel=1e-5)


def test_depth_that_is_not_finite_becomes_black(raw: torch.Tensor) -> None:
    raw[2, 0, 0] = float("nan")
    depth = normalise_per_frame(raw)
    assert depth[2].abs().max() == 0 and depth.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 1e6])
@pytest.mark.parametrize("lost", [(0,), (0, 1), (4,), (3, 4, 11)])
def test_the_range_leaves_out_what_is_no_depth(raw: torch.Tensor, value: float, lost) -> None:
    """As if these frames had not been there, even the first."""
    spoilt, state = raw.clone(), RunningRange()
    for frame in lost:
        spoilt[frame, 1, 2] = value
    kept = [frame for frame in range(len(raw)) if frame not in lost]
    for frame in spoilt:
        _, state = normalise_running(frame[None], state)
        assert state.low.isfinite() and state.high.isfinite()
        state = RunningRange.from_state_dict(state.state_dict())
    _, expected = normalise_running(raw[kept], RunningRange())
    assert torch.equal(state.low, expected.low) and torch.equal(state.high, expected.high)
