"""From raw inverse depth to depth in 0..1.

MiDaS gives inverse depth with an unknown scale and shift, so a picture of it needs a range: the raw
value that becomes black (far) and the one that becomes white (near). Where that range comes from is
a choice: each frame's own (as Live2Diff's released code does while streaming; depth flickers when
something near enters or leaves), one for the whole clip (steady, needs every frame beforehand), or
a running range that follows the stream (steady and causal). The released code takes one range over
its warm-up frames together; here the per-frame range is each frame's own there too.

Legend: F frames, H W height and width, raw: inverse depth of any scale, larger is nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PER_FRAME = "per_frame"
PER_CLIP = "per_clip"
RUNNING = "running"
MODES = (RUNNING, PER_CLIP, PER_FRAME)

# A range narrower than this share of its values is rounding noise of a constant frame: stretching
# it to 0..1 would show the noise.
_FLAT = 1e-6


@dataclass(frozen=True)
class RunningRange:
    """A depth range that follows a stream: a value, replaced frame by frame.

    The first frame sets the range. After that each end moves towards the frame's own end by a
    share of the distance: by `widen` when the frame reaches beyond the range, so that a near object
    that walks in is clipped for a few frames only, and by `narrow` when it does not, so that the
    picture breathes slowly when the object leaves. (An exponential moving minimum and maximum with
    separate attack and release, as in audio compressors.) With the defaults, widening is 94 % done
    after 4 frames and narrowing after 54.

    All arithmetic is on Python floats taken from one frame at a time, so the range after frame n
    depends on frames 0..n and not on how they were batched.

    Attributes:
        low: raw depth that becomes 0; meaningless while `frames` is 0.
        high: raw depth that becomes 1; meaningless while `frames` is 0.
        frames: number of frames seen.
        widen: share per frame, above 0 and up to 1; 1 never clips.
        narrow: share per frame, 0 to 1; 0 never narrows, 1 with `widen` 1 is the frame's own range.

    Raises:
        ValueError: a share outside its bounds.
    """

    low: float = 0.0
    high: float = 0.0
    frames: int = 0
    widen: float = 0.5
    narrow: float = 0.05

    def __post_init__(self) -> None:
        """Check the shares."""
        if not 0.0 < self.widen <= 1.0:
            raise ValueError(f"widen must be above 0 and at most 1, got {self.widen}.")
        if not 0.0 <= self.narrow <= 1.0:
            raise ValueError(f"narrow must lie between 0 and 1, got {self.narrow}.")

    def update(self, low: float, high: float) -> RunningRange:
        """Return the range after a frame whose raw depth spans `low` to `high`."""
        if self.frames == 0:
            return replace(self, low=low, high=high, frames=1)
        down = self.widen if low < self.low else self.narrow
        up = self.widen if high > self.high else self.narrow
        return replace(
            self,
            low=self.low + down * (low - self.low),
            high=self.high + up * (high - self.high),
            frames=self.frames + 1,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the range as scalar tensors (float64 and int64), ready for safetensors."""
        return {
            "low": torch.tensor(self.low, dtype=torch.float64),
            "high": torch.tensor(self.high, dtype=torch.float64),
            "frames": torch.tensor(self.frames, dtype=torch.int64),
            "widen": torch.tensor(self.widen, dtype=torch.float64),
            "narrow": torch.tensor(self.narrow, dtype=torch.float64),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> RunningRange:
        """Return the range that `state_dict` described.

        Raises:
            ValueError: an entry is missing.
        """
        names = ("low", "high", "frames", "widen", "narrow")
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"The depth range's state lacks {', '.join(missing)}.")
        low, high, frames, widen, narrow = (state[name].item() for name in names)
        return cls(float(low), float(high), int(frames), float(widen), float(narrow))


def normalise_per_frame(raw: Tensor) -> Tensor:
    """Stretch every frame's own range to 0..1 (Live2Diff's released code while streaming).

    Args:
        raw: [F, H, W], F at least 1.

    Returns:
        [F, H, W] float32 in 0..1; a constant frame becomes zeros.
    """
    return _stretch(raw, _frame_ranges(raw))


def normalise_per_clip(raw: Tensor) -> Tensor:
    """Stretch the range of all frames together to 0..1.

    Args:
        raw: [F, H, W], F at least 1.

    Returns:
        [F, H, W] float32 in 0..1; a constant clip becomes zeros.
    """
    ranges = _frame_ranges(raw)
    clip = (min(low for low, _ in ranges), max(high for _, high in ranges))
    return _stretch(raw, [clip] * len(ranges))


def normalise_running(raw: Tensor, state: RunningRange) -> tuple[Tensor, RunningRange]:
    """Stretch every frame by the running range after that frame, and clamp to 0..1.

    Args:
        raw: [F, H, W], the next F frames of the stream.
        state: range after the frames before; `RunningRange()` at the start.

    Returns:
        [F, H, W] float32 in 0..1, and the range after the last frame.
    """
    ranges = []
    for low, high in _frame_ranges(raw):
        state = state.update(low, high)
        ranges.append((state.low, state.high))
    return _stretch(raw, ranges), state


def normalise(raw: Tensor, mode: str) -> Tensor:
    """Normalise a whole clip, [F, H, W] to [F, H, W] in 0..1, in one of `MODES`.

    Raises:
        ValueError: another mode.
    """
    if mode == PER_FRAME:
        return normalise_per_frame(raw)
    if mode == PER_CLIP:
        return normalise_per_clip(raw)
    if mode == RUNNING:
        return normalise_running(raw, RunningRange())[0]
    raise ValueError(f"Unknown depth normalisation {mode!r}; choose one of {', '.join(MODES)}.")


def _frame_ranges(raw: Tensor) -> list[tuple[float, float]]:
    """Lowest and highest raw depth of every frame, read back in one transfer."""
    low, high = raw.float().flatten(1).aminmax(dim=1)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def _stretch(raw: Tensor, ranges: list[tuple[float, float]]) -> Tensor:
    """Map each frame's (low, high) to (0, 1), clamped; an empty range gives zeros."""
    spans = [_span(low, high) for low, high in ranges]
    low = torch.tensor([low for low, _ in ranges], dtype=torch.float32, device=raw.device)
    span = torch.tensor([span or 1.0 for span in spans], dtype=torch.float32, device=raw.device)
    keep = torch.tensor([span > 0.0 for span in spans], device=raw.device)
    depth = (raw.float() - low[:, None, None]) / span[:, None, None]
    return torch.where(keep[:, None, None], depth.clamp(0.0, 1.0), 0.0)


def _span(low: float, high: float) -> float:
    """Width of a range, or 0 when it is no more than rounding noise."""
    span = high - low
    return span if span > _FLAT * max(abs(low), abs(high)) else 0.0
