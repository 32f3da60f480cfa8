"""Measures the node Live Stream in a real ComfyUI: `dev.py live-bench`.

Everything is included that a user has: the graph queued over HTTP, the live page's websocket, the
session and the VAE stage. The models return their input at once, or after a wait that is known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from devtools.browser import find_browser
from devtools.console import run_main, say
from devtools.hosts import current_host
from devtools.live_bench_page import measure_page
from devtools.live_client import LiveClient, Shown, numbered_jpeg, read_number
from devtools.paths import REPO
from devtools.server import ComfyServer
from devtools.workspace import prepare_workspace

NODES = REPO / "devtools" / "live_bench_nodes.py"
SIDE, RATE = 512, 25
SLOW_MS = 300
# Of 50 steps, the last ones, which add hardly any noise.
STEPS, ONE_STEP = 50, 0.02


def graph(steps: int, milliseconds: int, side: int) -> dict[str, Any]:
    """Make a graph that runs `steps` denoising steps of a model that takes so long a call."""
    inputs = {
        **{"model": ["made", 0], "vae": ["made", 1]},
        **{"positive": ["made", 2], "negative": ["made", 2]},
        **{"stream": "bench", "source": "live page", "address": "", "outputs": ""},
        **{"seed": 1, "steps": STEPS, "denoise": ONE_STEP * steps, "cfg": 1.0},
        **{"size": "fill", "width": side, "height": side, "when_others_wait": "keep running"},
        **{"max_idle_minutes": 30, "max_total_gb": 8.0},
    }
    return {
        "made": {"class_type": "LiveBenchModels", "inputs": {"milliseconds": milliseconds}},
        "live": {"class_type": "Live2DiffLiveStream", "inputs": inputs},
    }


def measure(
    server: ComfyServer, steps: int, milliseconds: int, frames: int, side: int
) -> dict[str, Any]:
    """Run a stream, send frames at 25 a second, and return what was measured."""
    thread = threading.Thread(target=server.client.run, args=(graph(steps, milliseconds, side),))
    thread.start()
    try:
        return asyncio.run(_use(server, frames, side))
    finally:
        thread.join(60)


async def _use(server: ComfyServer, frames: int, side: int) -> dict[str, Any]:
    jpegs = [numbered_jpeg(number, side) for number in range(1, min(frames, 64) + 1)]
    async with LiveClient(server.url, "bench", keep=True) as client:
        await client.until(lambda: client.status.get("state") == "running", 300)
        started = memory = 0.0
        for number in range(frames):
            if number == frames // 5:
                memory = rss_mb(server.process_id)
            started = started or time.perf_counter()
            await asyncio.sleep(max(0.0, started + number / RATE - time.perf_counter()))
            if client.credits:
                await client.send(jpegs[client.sent % len(jpegs)])
        grown = rss_mb(server.process_id) - memory
        await client.say({"command": "finish", "id": 1})
        await client.until(lambda: client.status.get("state") == "stopped", 120)
        await client.until(lambda: _accounted(client), 60)
        return _figures(client, len(jpegs), grown)


def measure_in_browser(server: ComfyServer, frames: int, side: int) -> dict[str, Any] | None:
    """Do the same from the page in Chromium, with a quick model; None where there is none."""
    browser = find_browser()
    if browser is None:
        return None
    thread = threading.Thread(target=server.client.run, args=(graph(1, 0, side),))
    thread.start()
    try:
        return measure_page(browser, server.url, "bench", frames)
    finally:
        thread.join(60)


def _accounted(client: LiveClient) -> bool:
    return client.sent == len(client.results) + client.status.get("dropped", -1)


def _figures(client: LiveClient, numbers: int, grown: float) -> dict[str, Any]:
    shown = client.results
    sequences = [frame.sequence for frame in shown]
    wrong = [f for f in shown if read_number(f.picture) != (f.sequence - 1) % numbers + 1]
    # Frames that came while the models loaded waited for them.
    steady = shown[len(shown) // 10 :]
    third = max(len(steady) // 3, 1)
    return {
        "sent": client.sent,
        "shown": len(shown),
        "dropped": client.status["dropped"],
        "in_order": sequences == sorted(set(sequences)),
        "wrong_numbers": len(wrong),
        "overhead_ms_median": _median([f.server_ms - f.codec_ms for f in steady]),
        "codec_ms_median": _median([f.codec_ms for f in steady]),
        "latency_ms_median": _median(_latencies(steady)),
        "latency_ms_p95": _p95(_latencies(steady)),
        "latency_first_third_ms": _median(_latencies(steady[:third])),
        "latency_last_third_ms": _median(_latencies(steady[-third:])),
        "rss_growth_mb": round(grown, 1),
    }


def _latencies(frames: Sequence[Shown]) -> list[float]:
    return [frame.at * 1000.0 - frame.captured for frame in frames]


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 2) if values else float("nan")


def _p95(values: Sequence[float]) -> float:
    return round(sorted(values)[int(len(values) * 0.95)], 2) if values else float("nan")


def rss_mb(process_id: int) -> float:
    """Return the memory that a process has, in megabytes; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{process_id}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def report(
    fast: dict[str, Any], slow: dict[int, dict[str, Any]], page: dict[str, Any] | None
) -> dict[str, Any]:
    """Join the measurements under the names that are compared."""
    by_client = "a client in Python, from the frame's JPEG to the result's"
    by_page = "the page in Chromium, from the camera's frame to the drawn result"
    ratios = {f"T{t}": round(m["latency_ms_p95"] / SLOW_MS, 3) for t, m in slow.items()}
    return {
        "overhead_ms_median": fast["overhead_ms_median"],
        "codec_ms_median": fast["codec_ms_median"],
        "glass_to_glass_ms_p95": (page or fast)["latency_ms_p95"],
        "glass_to_glass_by": by_page if page else by_client,
        "sent": fast["sent"],
        "shown": fast["shown"],
        "dropped": fast["dropped"],
        "slow_model_latency_over_model_time": max(ratios.values(), default=float("nan")),
        "rss_growth_mb": max(m["rss_growth_mb"] for m in (fast, *slow.values())),
        "slow_model_latency_over_model_time_by_steps": ratios,
        "fast": fast,
        "slow": {f"T{t}": m for t, m in slow.items()},
        "page": page,
        "not_measured": "a screen of its own is what a headless browser does not have",
    }


def main() -> int:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--frames", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        base = prepare_workspace(Path(scratch))
        shutil.copy(NODES, base / "custom_nodes" / NODES.name)
        with ComfyServer(current_host(), base, cpu=True) as server:
            say(f"{options.frames} frames of {SIDE}x{SIDE} at {RATE} a second, four times ...")
            fast = measure(server, 1, 0, options.frames, SIDE)
            page = measure_in_browser(server, options.frames, SIDE)
            slow = {t: measure(server, t, SLOW_MS, options.frames, SIDE) for t in (1, 2)}
    text = json.dumps(report(fast, slow, page), indent=1)
    say(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_main(main))
