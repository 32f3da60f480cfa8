"""Normalises raw inverse depth to 0..1.

MiDaS returns inverse depth of an unknown scale and shift, so a picture of it needs a range: the raw
depth that becomes black (far) and the one that becomes white (near). There are three ways to choose
it: the range of each frame (as in Live2Diff's released code while streaming; depth flickers when a
near object enters or leaves), one range of the whole clip (steady, but all frames must be known
first), or a running range that follows the stream (steady and causal). The released code uses one
range for all warm-up frames together; here `per_frame` uses each frame's own range there, too.

Legend: F frames, H W height and width; `raw` is inverse depth of any scale, larger is nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

PER_FRAME = "per_frame"
PER_CLIP = "per_clip"
RUNNING = "running"
MODES = (RUNNING, PER_CLIP, PER_FRAME)

# A range narrower than this share of its values is the rounding noise of a constant frame;
# stretching it to 0..1 would make the noise visible.
_FLAT = 1e-6


@dataclass(frozen=True)
class RunningRange:
    """A depth range that follows a stream: an immutable value, replaced after every frame.

    The first frame sets the range. After that each end moves towards the frame's own end by a
    share of the distance: by `widen` when the frame exceeds the range, so that a near object that
    enters is clipped for only a few frames, and by `narrow` when it does not, so that the picture
    changes slowly when the object leaves. (This is an exponential moving minimum and maximum with
    separate attack and release, as in audio compressors.) With the defaults, widening is 94 %
    complete after 4 frames and narrowing after 54.

    The arithmetic is on Python floats of one frame at a time, so the range after frame n depends on
    frames 0..n and not on how they were batched.

    Attributes:
        low: raw depth that becomes 0; meaningless while `frames` is 0.
        high: raw depth that becomes 1; meaningless while `frames` is 0.
        frames: number of frames seen.
        widen: share per frame, above 0 and up to 1; 1 never clips.
        narrow: share per frame, 0 to 1; 0 never narrows, 1 with `widen` 1 is the frame's own range.

    Raises:
        ValueError: a share is out of bounds.
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
            name: torch.tensor(value, dtype=torch.int64 if name == "frames" else torch.float64)
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> RunningRange:
        """Restore the range from its `state_dict`.

        Raises:
            ValueError: an entry is missing.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"The depth range's state lacks {', '.join(missing)}.")
        values: dict[str, Any] = {name: state[name].item() for name in names}
        return cls(**values)


def normalise_per_frame(raw: Tensor) -> Tensor:
    """Stretch every frame's own range to 0..1, as Live2Diff's released code does while streaming.

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
        state: range after the previous frames; `RunningRange()` at the start.

    Returns:
        [F, H, W] float32 in 0..1, and the range after the last frame.
    """
    ranges = []
    for low, high in _frame_ranges(raw):
        state = state.update(low, high)
        ranges.append((state.low, state.high))
    return _stretch(raw, ranges), state


def normalise(raw: Tensor, mode: str) -> Tensor:
    """Normalise a whole clip, [F, H, W] to [F, H, W] in 0..1, by one of `MODES`.

    Raises:
        ValueError: there is no such mode.
    """
    if mode == PER_FRAME:
        return normalise_per_frame(raw)
    if mode == PER_CLIP:
        return normalise_per_clip(raw)
    if mode == RUNNING:
        return normalise_running(raw, RunningRange())[0]
    raise ValueError(f"Unknown depth normalisation {mode!r}; choose one of {', '.join(MODES)}.")


def _frame_ranges(raw: Tensor) -> list[tuple[float, float]]:
    """Find the lowest and highest raw depth of every frame, with one transfer to the CPU."""
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
    """Return the width of a range, or 0 if it is rounding noise."""
    span = high - low
    return span if span > _FLAT * max(abs(low), abs(high)) else 0.0
