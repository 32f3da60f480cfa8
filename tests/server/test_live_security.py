"""What the live page's addresses refuse, and what hostile clients cannot do to a stream."""

import asyncio
import contextlib
import json

import aiohttp
import pytest
from live_runs import bench_server, feed, feed_until, identity_graph, queued, running, stopped

from devtools.live_client import LiveClient, numbered_jpeg

pytestmark = pytest.mark.server
SIDE = 64
ELSEWHERE = {"Origin": "http://elsewhere.example"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with bench_server(tmp_path_factory.mktemp("server")) as server:
        yield server


def picture(number):
    return numbered_jpeg(number, SIDE)


def asked(server, use):
    """Run `use(http)` in a session of its own."""

    async def session():
        async with aiohttp.ClientSession() as http:
            return await use(http)

    return asyncio.run(session())


async def status(http, server, address, **headers):
    async with http.get(server.url + address, headers=headers) as answer:
        return answer.status


def test_pages_of_other_origins_are_refused_everywhere(server):
    addresses = ["", "/page/a.mjs", "/token", "/streams", "/socket", "/a.mjpg"]

    async def use(http):
        for address in addresses:
            for headers in (
                ELSEWHERE,
                {"Origin": "null"},
                {"Sec-Fetch-Site": "cross-site"},
                {"Sec-Fetch-Site": "same-site"},
            ):
                for root in ("/live2diff/live", "/api/live2diff/live"):
                    assert await status(http, server, root + address, **headers) == 403

    asked(server, use)


def test_files_are_served_by_name_only(server):
    async def use(http):
        for name in ("..%2froutes.py", "%2e%2e/tokens.py", "index.html", "routes.py", "x.mjs"):
            address = f"/live2diff/live/page/{name}"
            assert await status(http, server, address) in (403, 404)

    asked(server, use)


def test_the_list_needs_a_token(server):
    async def use(http):
        assert await status(http, server, "/live2diff/live/streams") == 403
        async with http.get(f"{server.url}/live2diff/live/token") as answer:
            token = (await answer.json())["token"]
        headers = {"X-Live2Diff-Token": token}
        async with http.get(f"{server.url}/live2diff/live/streams", headers=headers) as answer:
            assert (await answer.json()).keys() == {"streams"}

    asked(server, use)


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ({"hello": 1, "stream": "live", "role": "send"}, "token"),
        ({"hello": 1, "stream": "live", "token": "a.b"}, "token"),
        ({"hello": 2, "stream": "live", "token": "a.b"}, "version"),
        ({"hello": 1, "stream": "", "token": "a.b"}, "hello"),
        ({"hello": 1, "stream": ["live"], "token": "a.b"}, "hello"),
        ({"shown": 1}, "hello"),
        ([1], "hello"),
    ],
)
def test_a_hello_without_a_token_ends_the_connection(server, hello, code):
    async def use(http):
        async with http.ws_connect(f"{server.url}/live2diff/live/socket") as socket:
            await socket.send_json(hello)
            assert (await socket.receive_json(timeout=30))["code"] == code
            end = await socket.receive(timeout=30)
            assert end.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)

    asked(server, use)


NONSENSE = [
    b"",
    b"\x01",
    b"\x01" * 31,
    b"\x00" * 200,
    b"\xff" * 5000,
    picture(1),
    "",
    "{",
    "[]",
    "null",
    '{"set": "cfg", "value": 1e999}',
    '{"set": "prompt", "value": 7}',
    '{"set": ["cfg"], "value": 1}',
    '{"command": "explode"}',
    '{"command": ["stop"]}',
    '{"shown": "a"}',
    '{"shown": -5, "ms": "x"}',
    '{"role": "king"}',
    "[" * 10_000,
]


def test_nonsense_is_answered_and_the_stream_goes_on(server):
    header = LiveClient.header(1)
    broken = [picture(3)[:400], b"\x89PNG" + b"0" * 90, b"x", picture(2)[:-20] + b"0" * 900]

    async def use():
        async with LiveClient(server.url, keep=True) as client:
            await running(client)
            for data in NONSENSE:
                await client.raw(data)
            for data in broken:
                await client.raw(header + data)
            await client.until(lambda: len([m for m in client.messages if "error" in m]) > 10)
            await feed(client, [picture(5)] * 3)
            await client.until(lambda: client.results)
            assert client.status["state"] == "running"
            await stopped(client)

    with queued(server, identity_graph()) as outcome:
        asyncio.run(use())
    assert outcome["result"], outcome


@pytest.mark.parametrize(
    "flood",
    [
        lambda: [LiveClient.header(1) + picture(1)] * 400,
        lambda: ['{"shown": 1}'] * 400,
        lambda: ["x" * 20_000],
        lambda: [b"0" * (5 * 1024 * 1024)],
    ],
    ids=["frames", "messages", "long", "large"],
)
def test_a_flood_ends_its_own_connection_and_no_other(server, flood):
    async def use():
        async with LiveClient(server.url, role="watch") as other:
            await running(other)
            async with LiveClient(server.url) as client:
                with contextlib.suppress(ConnectionError):
                    for data in flood():
                        await client.raw(data)
                await asyncio.wait_for(client.closed.wait(), 60)
            await other.say({"role": "send"})
            await other.until_told("role", "send")
            await feed(other, [picture(1)] * 2)
            await other.until(lambda: other.results)
            await stopped(other)

    with queued(server, identity_graph()) as outcome:
        asyncio.run(use())
    assert outcome["result"], outcome


def test_fifty_connections_watch_and_the_sixty_fifth_is_refused(server):
    async def use():
        async with contextlib.AsyncExitStack() as stack:
            client = await stack.enter_async_context(LiveClient(server.url))
            await running(client)
            others = [LiveClient(server.url, role="watch") for _ in range(50)]
            for other in others:
                await stack.enter_async_context(other)
            await feed(client, [picture(1)] * 4)
            for other in [client, *others]:
                await other.until(lambda: any(f.frame >= 0 for f in other.frames))  # noqa: B023
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                for _ in range(20):
                    await stack.enter_async_context(LiveClient(server.url, role="watch"))
            await stopped(client)

    with queued(server, identity_graph()) as outcome:
        asyncio.run(use())
    assert outcome["result"], outcome


def test_a_watcher_that_never_answers_gets_no_more_than_its_window(server):
    async def use(http):
        async with http.get(f"{server.url}/live2diff/live/token") as answer:
            token = (await answer.json())["token"]
        async with (
            LiveClient(server.url) as client,
            http.ws_connect(f"{server.url}/live2diff/live/socket") as silent,
        ):
            hello = {"hello": 1, "token": token, "stream": "live", "role": "watch"}
            await silent.send_json(hello)
            await running(client)
            await feed_until(client, lambda: client.status["frame"] >= 5, picture(1))
            await stopped(client)
            frames, states = 0, []
            # All comes in the order in which it was sent: the run's end after all of its frames.
            while "running" not in states or states[-1] != "stopped":
                message = await silent.receive(timeout=60)
                if message.type is aiohttp.WSMsgType.BINARY:
                    frames += 1
                elif status := json.loads(message.data).get("status"):
                    states.append(status["state"])
            assert frames == 2

    with queued(server, identity_graph()):
        asked(server, use)
