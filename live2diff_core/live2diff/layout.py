"""The sizes of a motion module, and the bytes of its KV-caches."""

from __future__ import annotations

from dataclasses import dataclass

from ..stream.memory import StreamShape
from .stream_caches import AttentionSize

HEADS = 8


@dataclass(frozen=True)
class MotionLayout:
    """Sizes of a motion module, read from its file.

    Attributes:
        down, up: C of every module, by level, in the UNet's order.
        mid: C of the middle block's module; None without one (only AnimateDiff v2 has it).
        positions: P, length of the position table.
        depth_channels: C0 of the depth encoder; None without one.
        attentions: temporal attentions per transformer block.
    """

    down: tuple[tuple[int, ...], ...]
    up: tuple[tuple[int, ...], ...]
    mid: int | None
    positions: int
    depth_channels: int | None
    attentions: int = 2

    def cache_bytes(self, shape: StreamShape, slots: int) -> int:
        """Sum the bytes of all temporal attentions' KV-caches (Live2Diff, appendix A.2).

        Each attention keeps keys and values, [T, HW, L, C] each.

        Args:
            shape: size of the stream; its `passes` are T, summed over all conditionings.
            slots: L.

        Returns:
            Bytes: 1.52e9 per denoising step for SD1.5 at 512x512 in float16 with 16 slots.
        """
        values = sum(shape.tokens(size.level) * size.channels for size in self.attention_sizes())
        return 2 * slots * values * shape.passes * shape.bytes_per_value

    def attention_sizes(self) -> list[AttentionSize]:
        """List all temporal attentions in the UNet's order."""
        deepest = len(self.down) - 1
        blocks = [(f"down.{n}", n, widths) for n, widths in enumerate(self.down)]
        blocks += [("mid", deepest, (self.mid,))] if self.mid is not None else []
        blocks += [(f"up.{n}", deepest - n, widths) for n, widths in enumerate(self.up)]
        return [
            AttentionSize(f"{name}.{module}.{index}", level, HEADS, width)
            for name, level, widths in blocks
            for module, width in enumerate(widths)
            for index in range(self.attentions)
        ]


# Live2Diff's own motion module, at SD1.5's widths.
SD15 = MotionLayout(
    down=((320,) * 2, (640,) * 2, (1280,) * 2, (1280,) * 2),
    up=((1280,) * 3, (1280,) * 3, (640,) * 3, (320,) * 3),
    mid=None,
    positions=24,
    depth_channels=320,
)
