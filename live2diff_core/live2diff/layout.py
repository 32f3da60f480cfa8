"""The sizes of a motion module, and of the KV-caches that follow from them."""

from __future__ import annotations

from dataclasses import dataclass

from ..stream.memory import StreamShape


@dataclass(frozen=True)
class MotionLayout:
    """Sizes of a motion module, read from its file.

    Attributes:
        down, up: channels of every module of every level, UNet order.
        mid: channels of the mid-block module, or None (only AnimateDiff v2 has one).
        positions: length of the position table.
        depth_channels: width the depth encoder ends in, or None without one.
        attentions: temporal attentions per transformer block.
    """

    down: tuple[tuple[int, ...], ...]
    up: tuple[tuple[int, ...], ...]
    mid: int | None
    positions: int
    depth_channels: int | None
    attentions: int = 2

    def cache_bytes(self, shape: StreamShape, slots: int) -> int:
        """Add up the KV-caches of all temporal attentions (Live2Diff, appendix A.2).

        Each attention keeps keys and values, [T, HW, L, C] each.

        Args:
            shape: size of the stream; `passes` is T, once for each conditioning.
            slots: L, frames in the window.

        Returns:
            Bytes. SD1.5 at 512x512 in float16 with 16 slots: 1.52e9 per denoising step.
        """
        deepest = len(self.down) - 1
        values = sum(shape.tokens(n) * sum(level) for n, level in enumerate(self.down))
        values += sum(shape.tokens(deepest - n) * sum(level) for n, level in enumerate(self.up))
        values += shape.tokens(deepest) * (self.mid or 0)
        keys_and_values = 2 * self.attentions * slots * values
        return keys_and_values * shape.passes * shape.bytes_per_value


# SD1.5's UNet, with Live2Diff's 24 positions and depth encoder.
SD15 = MotionLayout(
    down=((320,) * 2, (640,) * 2, (1280,) * 2, (1280,) * 2),
    up=((1280,) * 3, (1280,) * 3, (640,) * 3, (320,) * 3),
    mid=None,
    positions=24,
    depth_channels=320,
)
