"""Live Stream on a real server: queued over HTTP, fed and watched over its websocket."""

import asyncio

import pytest
from comfy_servers import standin_base
from live_runs import (
    QUIET_TWICE,
    add_bench_nodes,
    drained,
    feed,
    identity_graph,
    queued,
    running,
    stopped,
)

from devtools.live_client import LAST, LiveClient, numbered_jpeg, read_number

pytestmark = pytest.mark.server
SIDE = 64


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server that has models which return their input."""
    base = standin_base(tmp_path_factory.mktemp("server"))
    add_bench_nodes(base)
    from devtools.hosts import current_host
    from devtools.server import ComfyServer

    with ComfyServer(current_host(), base, cpu=True) as server:
        yield server


def pictures(first, last):
    return [numbered_jpeg(number, SIDE) for number in range(first, last)]


def in_order(client):
    sequences = [frame.sequence for frame in client.results]
    return sequences == sorted(set(sequences))


def test_frames_come_back_in_order_as_they_were_and_none_is_lost_uncounted(server):
    async def use():
        async with LiveClient(server.url, keep=True) as client:
            assert client.welcome["role"] == "send"
            await running(client)
            await feed(client, pictures(1, 40))
            await stopped(client)
            await drained(client)
            assert in_order(client)
            for frame in client.results:
                assert read_number(frame.picture) == frame.sequence
            return client

    with queued(server, identity_graph(**QUIET_TWICE)) as outcome:
        client = asyncio.run(use())
    assert outcome["result"], outcome
    assert client.status["finished"] + client.status["dropped"] >= client.sent == 39
    assert client.status["inside"] == 0 and client.results[-1].flags & LAST
