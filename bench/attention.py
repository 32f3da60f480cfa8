"""Time the attention over the KV-cache against the released code's way of doing it.

Both attend, for one frame per denoising step, over all 40 temporal attentions of SD1.5. The
released way adds the positions to the whole cache, moves and copies it, and masks every head.

    python bench/attention.py [--size 256] [--steps 2] [--rounds 15]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

sys.path.append(str(Path(__file__).resolve().parent.parent))

from live2diff_core.live2diff.attention import (  # noqa: E402
    PositionTables,
    WindowView,
    windowed_attention,
)
from live2diff_core.live2diff.kv_cache import KVCache  # noqa: E402
from live2diff_core.live2diff.window import AttentionWindow  # noqa: E402
from live2diff_core.stream.call_plan import PackedIntegers  # noqa: E402

HEADS, WINDOW, FRAME = 8, 16, 100
# (channels, downsampling, attentions): each level of SD1.5 has 5 modules of 2 attentions.
LEVELS = ((320, 1, 10), (640, 2, 10), (1280, 4, 10), (1280, 8, 10))


class Level:
    """An attention with random queries [T, heads, HW, 1, d], a full cache and position tables."""

    def __init__(self, size: int, steps: int, channels: int, down: int) -> None:
        """Draw everything for an attention of `channels`, `down` times smaller than the latent."""
        tokens, dim = (size // 8 // down) ** 2, channels // HEADS
        self.tables = [torch.randn(24, channels) for _ in range(3)]
        self.joined = PositionTables.join([self.tables], HEADS)
        shape = (steps, HEADS, tokens, WINDOW, dim)
        self.cache = KVCache.allocate(shape, torch.float32, torch.device("cpu"))
        self.cache.keys.normal_()
        self.cache.values.normal_()
        self.query = torch.randn(steps, HEADS, tokens, 1, dim)


def released_form(level: Level, view: WindowView) -> Tensor:
    """Attend as the published code does: add the positions to the cache, then run masked SDPA."""
    query, key, value = (table.unflatten(1, (HEADS, -1)) for table in level.tables)
    placed = [part[view.key_positions[:, 0]].movedim(2, 1).unsqueeze(2) for part in (key, value)]
    keys, values = level.cache.keys + placed[0], level.cache.values + placed[1]
    query = level.query + query[view.query_positions].movedim(2, 1).unsqueeze(2)
    groups, _, tokens = query.shape[:3]
    # It masks even where, as here, all slots are visible.
    mask = torch.zeros(groups * HEADS, tokens, 1, WINDOW)
    flat = [part.flatten(0, 1).contiguous() for part in (query, keys, values)]
    out = scaled_dot_product_attention(*flat, attn_mask=mask)
    return out.view(query.shape)


def ours(level: Level, view: WindowView) -> Tensor:
    """Attend as this pack does."""
    (placed,) = level.joined.place(view)
    return windowed_attention(level.query, level.cache.keys, level.cache.values, placed, None)


def seconds(attend: Callable, inputs: list, view: WindowView) -> float:
    """Measure the seconds that one frame takes through all attentions."""
    start = time.perf_counter()
    for level, (*_, count) in zip(inputs, LEVELS, strict=True):
        for _ in range(count):
            attend(level, view)
    return time.perf_counter() - start


def main() -> None:
    """Measure both forms; print their times, ratio and largest difference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    window = AttentionWindow()
    rows = [window.row(range(FRAME - i, FRAME - i + 1)) for i in range(arguments.steps)]
    packed = PackedIntegers(torch.tensor(WindowView.integers(rows)))
    shape = (arguments.steps, 1, WINDOW)
    view = WindowView.from_integers(range(arguments.steps), shape, True, packed)
    inputs = [Level(arguments.size, arguments.steps, c, down) for c, down, _ in LEVELS]
    with torch.inference_mode():
        difference = max(
            (ours(level, view) - released_form(level, view)).abs().max().item() for level in inputs
        )
        pairs = [
            (seconds(released_form, inputs, view), seconds(ours, inputs, view))
            for _ in range(arguments.rounds)
        ]
    released, own = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{arguments.size}x{arguments.size}, T={arguments.steps}, float32, 40 attentions, CPU")
    print(f"released form {released * 1e3:.0f} ms, ours {own * 1e3:.0f} ms, ratio {ratio:.1f}")
    print(f"largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
