"""The frames that a frame sees, with their cache slots and their positions. Integers only.

Frames are denoised in *groups*: the frames of one group share every model call and see each other.
In causal streaming a group is one frame; the warm-up is one group; the bidirectional mode consists
only of groups. All four masks of Live2Diff's figure 1 use this mechanism with different numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class AttentionMode(str, Enum):
    """The attention mask between frames (Live2Diff, figure 1)."""

    BIDIRECTIONAL = "bidirectional"
    SLIDING = "sliding"
    CAUSAL = "causal"
    CAUSAL_WARMUP = "causal_warmup"


@dataclass(frozen=True)
class WindowRow:
    """The window of one group's Q frames at one denoising step, in a cache of L slots.

    Attributes:
        query_slots: Q cache slots that the frames of the group are written to.
        query_positions: Q positions of the frames of the group.
        key_positions: for each frame of the group, L positions of the frames in the cache, slot by
            slot; -1 hides a slot from it.
    """

    query_slots: tuple[int, ...]
    query_positions: tuple[int, ...]
    key_positions: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class AttentionWindow:
    """The attention mask of a stream, frame by frame (Live2Diff, section 3.3 and figure 1).

    - `bidirectional` (figure 1a): chunks of `window_size` frames; each sees its whole chunk.
    - `sliding` (figure 1b, for streams): a first chunk of `window_size` frames, then chunks of half
      a window, which also see the half window before them. Unlike in FreeNoise, finished frames are
      not denoised again when the next chunk arrives: in a stream they have already been shown.
    - `causal` (figure 1c): each frame sees the last `window_size` frames, itself included.
    - `causal_warmup` (figure 1d, the method): the first `warmup_frames` see each other; every later
      frame sees them and the last `window_size - warmup_frames` frames, itself included.

    Attributes:
        window_size: most frames visible at once, the current one included (L in the paper).
        warmup_frames: first frames of the stream, denoised together and always visible (L_w).
            Only `causal_warmup` uses it.
        attention_mode: one of the paper's four attention masks.

    Raises:
        ValueError: a number is out of range; the message says which and what is allowed.
    """

    window_size: int = 16
    warmup_frames: int = 8
    attention_mode: AttentionMode = AttentionMode.CAUSAL_WARMUP

    def __post_init__(self) -> None:
        """Check the numbers."""
        object.__setattr__(self, "attention_mode", AttentionMode(self.attention_mode))
        if self.window_size < 1:
            raise ValueError(f"window_size is {self.window_size}; it must be at least 1 frame.")
        if self.attention_mode is not AttentionMode.CAUSAL_WARMUP:
            return
        if not 1 <= self.warmup_frames < self.window_size:
            raise ValueError(
                f"warmup_frames is {self.warmup_frames} and window_size is {self.window_size}: the "
                "warm-up needs at least 1 frame and must leave room for at least 1 streamed frame "
                "in the window. Choose warmup_frames from 1 to window_size - 1, or the attention "
                "mode 'causal', which has no warm-up."
            )

    def check_positions(self, max_positions: int) -> None:
        """Refuse a window that is longer than the motion module's position table.

        Args:
            max_positions: length of the motion module's position table (24 in Live2Diff).

        Raises:
            ValueError: `window_size` is larger than the table.
        """
        if self.window_size > max_positions:
            raise ValueError(
                f"window_size is {self.window_size}, but this motion module's position table has "
                f"{max_positions} entries. Set the window to {max_positions} frames or fewer "
                "(Live2Diff was trained with 16)."
            )

    def group(self, frame: int) -> range:
        """Return the frames denoised together with `frame`; the stream may end within them."""
        size, mode = self.window_size, self.attention_mode
        if mode is AttentionMode.BIDIRECTIONAL:
            start = frame - frame % size
            return range(start, start + size)
        if mode is AttentionMode.SLIDING:
            if frame < size:
                return range(size)
            hop = size - size // 2
            start = frame - (frame - size) % hop
            return range(start, start + hop)
        warmup = self.warmup_frames
        if mode is AttentionMode.CAUSAL_WARMUP and frame < warmup:
            return range(warmup)
        return range(frame, frame + 1)

    def slot(self, frame: int) -> int:
        """Return the cache slot of `frame`: fixed for the warm-up, in a ring for other frames."""
        if self.attention_mode is not AttentionMode.CAUSAL_WARMUP:
            return frame % self.window_size
        warmup = self.warmup_frames
        if frame < warmup:
            return frame
        return warmup + (frame - warmup) % (self.window_size - warmup)

    def visible(self, group: range) -> list[int]:
        """List the frames that the frames of `group` see, oldest first, themselves included."""
        mode, start, stop = self.attention_mode, group.start, group.stop
        if mode is AttentionMode.BIDIRECTIONAL:
            return list(group)
        if mode is AttentionMode.SLIDING:
            return list(range(max(0, start - self.window_size // 2), stop))
        if mode is AttentionMode.CAUSAL:
            return list(range(max(0, stop - self.window_size), stop))
        warmup = self.warmup_frames
        if start < warmup:
            return list(group)
        recent = max(warmup, stop - (self.window_size - warmup))
        return [*range(warmup), *range(recent, stop)]

    def row(self, group: range) -> WindowRow:
        """Compute slots and positions for `group`: a position is a rank among visible frames."""
        position = {frame: rank for rank, frame in enumerate(self.visible(group))}
        key_positions = [-1] * self.window_size
        for frame, rank in position.items():
            key_positions[self.slot(frame)] = rank
        return WindowRow(
            query_slots=tuple(self.slot(frame) for frame in group),
            query_positions=tuple(position[frame] for frame in group),
            # The frames of a group see the same.
            key_positions=(tuple(key_positions),) * len(group),
        )
