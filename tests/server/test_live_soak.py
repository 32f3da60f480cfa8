"""Ten minutes of a live stream: pages come and go, settings change, and nothing grows."""

import asyncio
import time

import pytest
from live_runs import bench_server, drained, identity_graph, queued, running, stopped

from devtools.live_bench import rss_mb
from devtools.live_client import LiveClient, numbered_jpeg

pytestmark = [pytest.mark.server, pytest.mark.marathon]
SECONDS, SIDE, RATE = 600, 64, 25
# Of the server: what is not ours, such as the host's log, grows a little.
MOST_MB = 30


def test_a_stream_soaks_for_ten_minutes(tmp_path):
    with bench_server(tmp_path) as server:
        with queued(server, identity_graph()) as outcome:
            asyncio.run(soak(server))
        assert outcome["result"], outcome


async def soak(server):
    """Send at 25 a second, from a new connection every ten seconds."""
    end, turn, settled = time.monotonic() + SECONDS, 0, 0.0
    while time.monotonic() < end:
        async with LiveClient(server.url) as client, LiveClient(server.url, role="watch") as other:
            await running(client)
            await feed_and_change(client, min(end, time.monotonic() + 10), turn)
            await client.until(lambda: client.status["inside"] == 0)  # noqa: B023
            await drained(client)
            frames = [frame.frame for frame in client.results]
            assert frames == sorted(set(frames))
            assert any(frame.frame >= 0 for frame in other.frames)
        turn += 1
        settled = settled or rss_mb(server.process_id)
    assert rss_mb(server.process_id) - settled < MOST_MB
    async with LiveClient(server.url) as client:
        await stopped(client)


async def feed_and_change(client, end, turn):
    """Send pictures, and once a second another setting."""
    changes = [("threshold", 0.9), ("seed", str(turn)), ("cut", True), ("threshold", 1.0)]
    number = 0
    while time.monotonic() < end:
        if client.credits:
            await client.send(numbered_jpeg(number, SIDE))
        if number % RATE == 0:
            control, value = changes[number // RATE % len(changes)]
            await client.say({"set": control, "value": value, "id": number})
        number += 1
        await asyncio.sleep(1 / RATE)
