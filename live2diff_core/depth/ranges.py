"""Normalises raw inverse depth to 0..1.

MiDaS returns inverse depth of an unknown scale and shift, so a picture of it needs a range: the raw
depth that becomes black (far) and the one that becomes white (near). There are three ways to choose
it: the range of each frame (as in Live2Diff's released code while streaming; depth flickers when a
near object enters or leaves), one range of the whole clip (steady, but all frames must be known
first), or a running range that follows the stream (steady and causal). The released code uses one
range for all warm-up frames together; here `per_frame` uses each frame's own range there, too.

All of it is computed on the device of the depth: no number is read back, so that a frame's work is
queued without waiting for that of the frame before.

Legend: F frames, H W height and width; `raw` is inverse depth of any scale, larger is nearer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

PER_FRAME = "per_frame"
PER_CLIP = "per_clip"
RUNNING = "running"
MODES = (RUNNING, PER_CLIP, PER_FRAME)

# Depth beyond this is no depth: MiDaS stays below some tens of thousands, and float16 ends here.
_LARGEST = 65504.0
# A range narrower than this share of its values is the rounding noise of a constant frame;
# stretching it to 0..1 would make the noise visible.
_FLAT = 1e-6


# Ends of a range that no frame has set: turned round.
_UNSET = (0.0, -1.0)


@dataclass(frozen=True)
class RunningRange:
    """A depth range that follows a stream: an immutable value, replaced after every frame.

    The first frame sets the range. After that each end moves towards the frame's own end by a
    share of the distance: by `widen` when the frame exceeds the range, so that a near object that
    enters is clipped for only a few frames, and by `narrow` when it does not, so that the picture
    changes slowly when the object leaves. (This is an exponential moving minimum and maximum with
    separate attack and release, as in audio compressors.) With the defaults, widening is 94 %
    complete after 4 frames and narrowing after 54.

    The arithmetic is on one frame at a time, so the range after frame n depends on frames 0..n and
    not on how they were batched. A frame of NaN, infinite or absurd depth leaves the range as it
    is.

    Attributes:
        low: raw depth that becomes 0, 0-d float32; meaningless while `frames` is 0.
        high: raw depth that becomes 1, 0-d float32; meaningless while `frames` is 0.
        frames: number of frames seen.
        widen: share per frame, above 0 and up to 1; 1 never clips.
        narrow: share per frame, 0 to 1; 0 never narrows, 1 with `widen` 1 is the frame's own range.

    Raises:
        ValueError: a share is out of bounds.
    """

    low: Tensor = field(default_factory=lambda: torch.zeros(()))
    high: Tensor = field(default_factory=lambda: torch.zeros(()))
    frames: int = 0
    widen: float = 0.5
    narrow: float = 0.05

    def __post_init__(self) -> None:
        """Check the shares."""
        if not 0.0 < self.widen <= 1.0:
            raise ValueError(f"widen must be above 0 and at most 1, got {self.widen}.")
        if not 0.0 <= self.narrow <= 1.0:
            raise ValueError(f"narrow must lie between 0 and 1, got {self.narrow}.")

    def update(self, low: Tensor, high: Tensor) -> RunningRange:
        """Return the range after a frame whose raw depth spans `low` to `high`, 0-d float32."""
        usable = is_depth(low, high)
        if self.frames == 0:
            low, high = (
                torch.where(usable, *ends) for ends in zip((low, high), _UNSET, strict=True)
            )
            return replace(self, low=low, high=high, frames=1)
        # A loaded range lies on the CPU until its first frame.
        old_low, old_high = self.low.to(low.device), self.high.to(high.device)
        down, up = low - old_low, high - old_high
        unset = old_low > old_high
        next_low = old_low + torch.where(down < 0, self.widen * down, self.narrow * down)
        next_high = old_high + torch.where(up > 0, self.widen * up, self.narrow * up)
        return replace(
            self,
            low=torch.where(usable, torch.where(unset, low, next_low), old_low),
            high=torch.where(usable, torch.where(unset, high, next_high), old_high),
            frames=self.frames + 1,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Return the range as scalar tensors, ready for safetensors; `low` and `high` as held."""
        return {
            "low": self.low,
            "high": self.high,
            "frames": torch.tensor(self.frames),
            "widen": torch.tensor(self.widen, dtype=torch.float64),
            "narrow": torch.tensor(self.narrow, dtype=torch.float64),
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> RunningRange:
        """Restore the range from its `state_dict`; the next frame moves it to its own device.

        Version 0.1.0 saved `low` and `high` in float64, which Apple GPUs do not have.

        Raises:
            ValueError: an entry is missing, or anything but what `state_dict` returns.
        """
        names = [entry.name for entry in fields(cls)]
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"The depth range's state lacks {', '.join(missing)}.")
        for name in names:
            tensor = state[name]
            if tensor.ndim or not (name == "frames" or tensor.is_floating_point()):
                raise ValueError(
                    f"The depth range's '{name}' should be one number, but is {tensor.dtype} "
                    f"{list(tensor.shape)}."
                )
        low, high, frames = (float(state[name]) for name in ("low", "high", "frames"))
        counted = frames >= 0 and frames.is_integer()
        ordered = low <= high or (low, high) == _UNSET
        if not (math.isfinite(low) and math.isfinite(high) and ordered and counted):
            raise ValueError(f"A depth range from {low} to {high} of {frames:g} frames cannot be.")
        return cls(
            low=state["low"].float(),
            high=state["high"].float(),
            frames=int(state["frames"]),
            widen=float(state["widen"]),
            narrow=float(state["narrow"]),
        )


def is_depth(low: Tensor, high: Tensor) -> Tensor:
    """Return whether raw depth that spans `low` to `high` is finite and of a usual size: bool."""
    # Both are NaN if any value is, and NaN is not within any bounds.
    return (low > -_LARGEST) & (high < _LARGEST)


def normalise_per_frame(raw: Tensor) -> Tensor:
    """Stretch every frame's own range to 0..1, as Live2Diff's released code does while streaming.

    Args:
        raw: [F, H, W], F at least 1.

    Returns:
        [F, H, W] float32 in 0..1; a constant frame becomes zeros.
    """
    return _stretch(raw, *_frame_ranges(raw))


def normalise_per_clip(raw: Tensor) -> Tensor:
    """Stretch the range of all frames together to 0..1.

    Args:
        raw: [F, H, W], F at least 1.

    Returns:
        [F, H, W] float32 in 0..1; a constant clip becomes zeros.
    """
    low, high = raw.float().aminmax()
    return _stretch(raw, low.expand(len(raw)), high.expand(len(raw)))


def normalise_running(raw: Tensor, state: RunningRange) -> tuple[Tensor, RunningRange]:
    """Stretch every frame by the running range after that frame, and clamp to 0..1.

    Args:
        raw: [F, H, W], the next F frames of the stream.
        state: range after the previous frames; `RunningRange()` at the start.

    Returns:
        [F, H, W] float32 in 0..1, and the range after the last frame.
    """
    lows, highs = [], []
    for low, high in zip(*_frame_ranges(raw), strict=True):
        state = state.update(low, high)
        lows.append(state.low)
        highs.append(state.high)
    return _stretch(raw, torch.stack(lows), torch.stack(highs)), state


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


def _frame_ranges(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Find the lowest and the highest raw depth of every frame, [F] float32 each."""
    low, high = raw.float().flatten(1).aminmax(dim=1)
    return low, high


def _stretch(raw: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Map each frame's range, `low` to `high` [F], to 0..1, clamped; an empty range gives zeros."""
    span = high - low
    # Not finite counts as empty, too.
    empty = ~(span > _FLAT * torch.maximum(low.abs(), high.abs()))
    span = span.masked_fill(empty, 1.0)
    depth = (raw.float() - low[:, None, None]) / span[:, None, None]
    return depth.clamp(0.0, 1.0).masked_fill(empty[:, None, None], 0.0)
