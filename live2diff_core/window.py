"""Which frames a frame sees, where they lie in the cache, and at which positions. Integers only.

Frames are denoised in *groups*: the frames of one group share every model call and see each other.
In causal streaming a group is one frame; the warm-up is one group; the bidirectional mode is made
of groups only. All four masks of Live2Diff's figure 1 are this one mechanism with other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import AttentionMode, StreamConfig


@dataclass(frozen=True)
class WindowRow:
    """What the frames of one group see at one denoising step.

    Attributes:
        query_slots: slot that each frame of the group is written to, in frame order.
        query_positions: position of each frame of the group.
        key_positions: position of the frame in every slot of the cache; -1 hides the slot.
    """

    query_slots: tuple[int, ...]
    query_positions: tuple[int, ...]
    key_positions: tuple[int, ...]


class AttentionWindow:
    """The attention mask of a stream, frame by frame (Live2Diff, section 3.3 and figure 1).

    - `bidirectional` (figure 1a): chunks of `window_size` frames, each sees its whole chunk.
    - `sliding` (figure 1b, for streams): a first chunk of `window_size` frames, then chunks of half
      a window, which also see the half window before them. Unlike FreeNoise, finished frames are
      not denoised again when the next chunk arrives: in a stream they have already been shown.
    - `causal` (figure 1c): each frame sees the last `window_size` frames, itself included.
    - `causal_warmup` (figure 1d, the method): the first `warmup_frames` see each other; every later
      frame sees them and the last `window_size - warmup_frames` frames, itself included.
    """

    def __init__(self, config: StreamConfig) -> None:
        """Build the window of `config`."""
        self.config = config
        self.slots = config.window_size
        self._overlap = config.window_size // 2

    def group(self, frame: int) -> range:
        """Frames that are denoised together with `frame`; the stream's end may cut the last one."""
        size, mode = self.slots, self.config.attention_mode
        if mode is AttentionMode.BIDIRECTIONAL:
            start = frame - frame % size
            return range(start, start + size)
        if mode is AttentionMode.SLIDING:
            if frame < size:
                return range(size)
            hop = size - self._overlap
            start = frame - (frame - size) % hop
            return range(start, start + hop)
        warmup = self.config.warmup_frames
        if mode is AttentionMode.CAUSAL_WARMUP and frame < warmup:
            return range(warmup)
        return range(frame, frame + 1)

    def slot(self, frame: int) -> int:
        """Cache slot of `frame`. Warm-up frames keep theirs; the others take turns."""
        if self.config.attention_mode is not AttentionMode.CAUSAL_WARMUP:
            return frame % self.slots
        warmup = self.config.warmup_frames
        if frame < warmup:
            return frame
        return warmup + (frame - warmup) % (self.slots - warmup)

    def visible(self, group: range) -> list[int]:
        """Frames that the frames of `group` see, in time order, themselves included."""
        mode, start, stop = self.config.attention_mode, group.start, group.stop
        if mode is AttentionMode.BIDIRECTIONAL:
            return list(group)
        if mode is AttentionMode.SLIDING:
            return list(range(max(0, start - self._overlap), stop))
        if mode is AttentionMode.CAUSAL:
            return list(range(max(0, stop - self.slots), stop))
        warmup = self.config.warmup_frames
        if start < warmup:
            return list(group)
        recent = max(warmup, stop - (self.slots - warmup))
        return [*range(warmup), *range(recent, stop)]

    def row(self, group: range) -> WindowRow:
        """Slots and positions for `group`; a key's position is its rank among the visible ones."""
        position = {frame: rank for rank, frame in enumerate(self.visible(group))}
        key_positions = [-1] * self.slots
        for frame, rank in position.items():
            key_positions[self.slot(frame)] = rank
        return WindowRow(
            query_slots=tuple(self.slot(frame) for frame in group),
            query_positions=tuple(position[frame] for frame in group),
            key_positions=tuple(key_positions),
        )
