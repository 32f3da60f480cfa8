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

HEADS, WINDOW, FRAME = 8, 16, 100
# (channels, downsampling, attentions): each level of SD1.5 has 5 modules of 2 attentions.
LEVELS = ((320, 1, 10), (640, 2, 10), (1280, 4, 10), (1280, 8, 10))


def released_form(query: Tensor, cache: KVCache, view: WindowView) -> Tensor:
    """Attend as the published code does: add the positions to the cache, then run masked SDPA."""
    keys = cache.keys + cache.positions.key[view.key_positions].transpose(1, 2).unsqueeze(1)
    values = cache.values + cache.positions.value[view.key_positions].transpose(1, 2).unsqueeze(1)
    query = query + cache.positions.query[view.query_positions].transpose(1, 2).unsqueeze(1)
    rows, tokens = query.shape[:2]
    # It masks even where, as here, all slots are visible.
    mask = torch.zeros(rows * tokens, HEADS, 1, WINDOW)
    flat = [part.flatten(0, 1).contiguous() for part in (query, keys, values)]
    out = scaled_dot_product_attention(*flat, attn_mask=mask)
    return out.view(query.shape)


def ours(query: Tensor, cache: KVCache, view: WindowView) -> Tensor:
    """Attend as this pack does."""
    return windowed_attention(query, cache.keys, cache.values, cache.positions, view)


def level_inputs(size: int, steps: int, channels: int, down: int) -> tuple[Tensor, KVCache]:
    """Make random queries [T, HW, heads, 1, d] and a full cache for one attention."""
    tokens, dim = (size // 8 // down) ** 2, channels // HEADS
    tables = PositionTables(*(torch.randn(24, HEADS, dim) for _ in range(3)))
    cache = KVCache.allocate((steps, tokens, HEADS, WINDOW, dim), tables, torch.empty(0))
    cache.keys.normal_()
    cache.values.normal_()
    return torch.randn(steps, tokens, HEADS, 1, dim), cache


def seconds(attend: Callable, inputs: list, view: WindowView) -> float:
    """Measure the seconds that one frame takes through all attentions."""
    start = time.perf_counter()
    for (query, cache), (*_, count) in zip(inputs, LEVELS, strict=True):
        for _ in range(count):
            attend(query, cache, view)
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
    view = WindowView.from_rows(range(arguments.steps), rows, torch.device("cpu"))
    inputs = [level_inputs(arguments.size, arguments.steps, c, down) for c, down, _ in LEVELS]
    with torch.inference_mode():
        difference = max(
            (ours(q, c, view) - released_form(q, c, view)).abs().max().item() for q, c in inputs
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
