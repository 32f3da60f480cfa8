"""Settings of the temporal attention: one frozen value, checked once, passed whole."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

MAX_DENOISING_STEPS = 8


class AttentionMode(str, Enum):
    """Who may attend to whom (Live2Diff, figure 1)."""

    BIDIRECTIONAL = "bidirectional"
    SLIDING = "sliding"
    CAUSAL = "causal"
    CAUSAL_WARMUP = "causal_warmup"


@dataclass(frozen=True)
class StreamConfig:
    """How far a frame looks back, and at what.

    Attributes:
        window_size: most frames visible at once, the current one included (L in the paper).
        warmup_frames: first frames of the stream, denoised together and visible for ever (L_w).
            Only `causal_warmup` uses it.
        attention_mode: which of the paper's four attention masks is followed.

    Raises:
        ValueError: a number out of range; the message says which and what is allowed.
    """

    window_size: int = 16
    warmup_frames: int = 8
    attention_mode: AttentionMode = AttentionMode.CAUSAL_WARMUP

    def __post_init__(self) -> None:
        """Reject what no window can be built from."""
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
        """Refuse a window that the motion module has no positions for.

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
