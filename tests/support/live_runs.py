"""Graphs with the node Live Stream on a real server, and how they are queued and watched."""

import asyncio
import shutil
import threading
import time
from contextlib import contextmanager

from comfy_servers import standin_base
from video_graphs import node

from devtools.paths import REPO

# Enough steps that one of them has hardly any noise.
QUIET = {"seed": 1, "steps": 50, "denoise": 0.02, "cfg": 1.0}
QUIET_TWICE = {**QUIET, "denoise": 0.04}
BENCH_NODES = REPO / "devtools" / "live_bench_nodes.py"


def live_node(models, **changes):
    """The node itself, with inputs (model, vae, prompts) from `models`."""
    inputs = {
        **models,
        **QUIET,
        "stream": "live",
        "source": "live page",
        "address": "",
        "outputs": "",
        "when_others_wait": "keep running",
        "size": "fill",
        "width": 64,
        "height": 64,
        "max_idle_minutes": 30,
        "max_total_gb": 8.0,
        **changes,
    }
    return node("Live2DiffLiveStream", **inputs)


def identity_graph(milliseconds=0, **changes):
    """A graph whose model returns its input, in squares, after a wait."""
    models = {"model": ["made", 0], "vae": ["made", 1]}
    models |= {"positive": ["made", 2], "negative": ["made", 2]}
    return {
        "made": node("LiveBenchModels", milliseconds=milliseconds),
        "live": live_node(models, **changes),
    }


@contextmanager
def bench_server(folder):
    """Run a server that has the models which do nothing, too."""
    base = standin_base(folder)
    shutil.copy(BENCH_NODES, base / "custom_nodes" / BENCH_NODES.name)
    from devtools.hosts import current_host
    from devtools.server import ComfyServer

    with ComfyServer(current_host(), base, cpu=True) as server:
        yield server


@contextmanager
def queued(server, graph):
    """Run a graph in a thread for a `with` block, which stops it; yields what becomes of it."""
    outcome = {}

    def run():
        try:
            outcome["result"] = server.client.run(graph)
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join(60)
        if thread.is_alive():
            server.client.interrupt()
            thread.join(60)


async def stopped(client, how="finish"):
    """End the stream, and wait until it has ended."""
    await client.say({"command": how, "id": "end"})
    await client.until_told("done", how)
    await client.until(lambda: client.status.get("state") in ("stopped", "waiting"))


PAUSE = 0.1


async def running(client, seconds=120):
    """Wait until the stream takes frames."""
    await client.until(lambda: client.status.get("state") == "running", seconds)


async def feed(client, pictures, rate=None):
    """Send pictures, each when there is a credit, or at a rate and then only if there is one."""
    for picture in pictures:
        if rate is None:
            await client.send(picture)
            # Of frames that come at once, only the newest is translated.
            await asyncio.sleep(PAUSE)
        else:
            if client.credits:
                await client.send(picture)
            await asyncio.sleep(1 / rate)


async def feed_until(client, happened, picture, seconds=120):
    """Send a picture again and again until `happened()` is true."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, f"fed in vain: {client.status}"
        await client.send(picture)
        await asyncio.sleep(0.05)


async def drained(client, seconds=60):
    """Wait until every frame sent is accounted for."""

    def accounted():
        return client.sent == len(client.results) + client.status.get("dropped", -1)

    await client.until(accounted, seconds)
