"""Live Stream on a real server: queued over HTTP, fed and watched over its websocket."""

import asyncio
import io
import json
from fractions import Fraction

import av
import numpy as np
import pytest
from live_graphs import SAMPLING, live2diff_models
from live_runs import (
    QUIET_TWICE,
    bench_server,
    drained,
    feed,
    feed_until,
    identity_graph,
    live_node,
    queued,
    running,
    stopped,
)
from PIL import Image
from video_graphs import node

from devtools.live_client import LAST, LiveClient, numbered_jpeg, read_number

pytestmark = pytest.mark.server
SIDE = 64
PICTURE = numbered_jpeg(3, SIDE)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with bench_server(tmp_path_factory.mktemp("server")) as server:
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
    assert client.status["inside"] == 0 and client.results[-1].flags & LAST


def test_h264_both_ways(server):
    """Frames depend on those before them, so drops must not break what comes after."""

    def packets():
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width = encoder.height = SIDE
        encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 30)
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"}
        for number in range(1, 40):
            picture = np.asarray(Image.open(io.BytesIO(numbered_jpeg(number, SIDE))))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            (packet,) = encoder.encode(frame)
            yield 2 if packet.is_keyframe else 3, bytes(packet)

    async def use():
        codecs = ["other", "h264", "jpeg"]
        async with LiveClient(server.url, keep=True, codecs=codecs) as client:
            assert client.welcome["codec"] == "h264"
            await running(client)
            for kind, data in packets():
                await client.send(data, kind=kind)
            await stopped(client)
            await drained(client)
            return client

    with queued(server, identity_graph()):
        client = asyncio.run(use())
    decoder = av.CodecContext.create("h264", "r")
    decoder.options = {"flags": "low_delay"}
    for place, frame in enumerate(client.frames):
        assert frame.kind == 3 or place in (0, 90)
        (picture,) = decoder.decode(av.Packet(frame.data))
        if frame in client.results:
            assert read_number(picture.to_ndarray(format="rgb24")) == frame.sequence
    assert len(client.results) > 1


def test_a_slow_model_drops_frames_and_stays_within_its_own_time(server):
    """Steps of 200 ms, two of them: a frame waits for one call at most, and is in two."""

    async def use():
        async with LiveClient(server.url) as client:
            await running(client)
            await feed(client, pictures(1, 100), rate=25)
            await stopped(client)
            await drained(client)
            assert in_order(client) and client.status["dropped"] > 50
            waited = sorted(frame.server_ms for frame in client.results[2:-1])
            assert waited[len(waited) // 2] < 3 * 200 + 100

    with queued(server, identity_graph(200, **QUIET_TWICE)):
        asyncio.run(use())


def test_ten_reconnections_show_no_frame_twice_and_none_out_of_order(server):
    async def use():
        seen = []
        for turn in range(10):
            async with LiveClient(server.url, keep=True) as client:
                await running(client)
                first = 1 + 5 * turn
                await feed(client, pictures(first, first + 5))
                await client.until(lambda: client.results, 60)  # noqa: B023
                assert in_order(client)
                for frame in client.results:
                    assert read_number(frame.picture) == first + frame.sequence - 1
                seen += [frame.frame for frame in client.frames if frame.frame >= 0]
        assert seen == sorted(set(seen))
        async with LiveClient(server.url) as client:
            await stopped(client)

    with queued(server, identity_graph(**QUIET_TWICE)):
        asyncio.run(use())


def test_a_second_page_watches_and_takes_over(server):
    async def use():
        async with LiveClient(server.url, keep=True) as second:
            async with LiveClient(server.url) as first:
                roles = sorted([first.welcome["role"], second.welcome["role"]])
                assert roles == ["send", "watch"] and second.welcome["role"] == "send"
                await running(second)
                await feed(second, pictures(1, 4))
                # Of frames that come at once, the newest is enough.
                await first.until(lambda: first.frames)
                await first.raw(b"x" * 40)
                assert (await first.until_told("code", "frame"))["remedy"]
                await second.say({"role": "watch"})
                await second.until_told("role", "watch")
                await first.say({"role": "send"})
                await first.until_told("role", "send")
                await feed(first, pictures(1, 4))
                await first.until(lambda: first.results)
                await stopped(first)

    with queued(server, identity_graph()):
        asyncio.run(use())


def test_players_get_mjpeg_with_the_read_only_token(server):
    async def use():
        import aiohttp

        async with LiveClient(server.url) as client, aiohttp.ClientSession() as http:
            await running(client)
            await feed(client, pictures(7, 8))
            async with http.get(server.url + client.welcome["mjpg"]) as answer:
                assert answer.status == 200
                assert answer.content_type == "multipart/x-mixed-replace"
                await feed(client, pictures(7, 12))
                data = await asyncio.wait_for(answer.content.readuntil(b"\r\n\r\n"), 60)
                length = int(data.split(b"Content-Length: ")[1])
                jpeg = await answer.content.readexactly(length)
                assert jpeg[:2] == b"\xff\xd8"
            for token in ("", "?token=0", client.welcome["mjpg"].replace("live.mjpg", "a.mjpg")):
                address = token if token.startswith("/") else f"/live2diff/live/live.mjpg{token}"
                async with http.get(server.url + address) as answer:
                    assert answer.status == 403
            await stopped(client)

    with queued(server, identity_graph()):
        asyncio.run(use())


def test_settings_change_without_the_graph_and_are_recorded(server):
    """With the stand-in models: text encoder, motion module, a prompt and a hard cut."""
    models = {name: SAMPLING[name] for name in ("model", "positive", "negative")}
    inputs = {**models, "vae": ["checkpoint", 2], "clip": ["checkpoint", 1], **SAMPLING}
    graph = {**live2diff_models(), "live": live_node(inputs, **SAMPLING, outputs="recording")}

    async def use():
        async with LiveClient(server.url) as client:
            await running(client, 300)
            await feed_until(client, lambda: client.status["finished"] > 2, PICTURE)
            settings = [m["settings"] for m in client.messages if "settings" in m][-1]
            assert all(settings[name]["available"] for name in settings)
            text = {"text": "a house", "blend": 2}
            await client.say({"set": "prompt", "value": text, "id": 5})
            await client.say({"set": "cut", "value": True, "id": 6})
            told = await client.until_told("applied", "cut")
            assert told["restarts"] and told["id"] == 6
            assert (await client.until_told("applied", "prompt"))["value"] == text
            frames = told["frame"] + 4
            await feed_until(client, lambda: client.status["frame"] > frames, PICTURE)
            await stopped(client)
            await drained(client)
            return told["frame"]

    with queued(server, graph) as outcome:
        frame = asyncio.run(use())
    assert outcome["result"], outcome
    (folder,) = (server.base / "output" / "live2diff" / "recordings").glob("live-*")
    facts = json.loads((folder / "recording.json").read_text(encoding="utf-8"))
    assert [(c["control"], c["frame"]) for c in facts["changes"]] == [
        ("prompt", frame),
        ("cut", frame),
    ]
    render(server, inputs, folder.name, facts["frames"])


def render(server, inputs, name, frames):
    """Render a recording again through Load Recording and Stream Video."""
    inputs = {key: value for key, value in inputs.items() if key != "clip"}
    size = {"size": "keep", "width": 64, "height": 64, "codec": "lossless", "crf": 18}
    graph = {
        **live2diff_models(),
        "load": node("Live2DiffLoadRecording", recording=name, settings="as recorded"),
        "stream": node(
            "Live2DiffStreamVideo",
            **{**inputs, **size, "checkpoint_every": 3},
            video=["load", 0],
            recording=["load", 1],
        ),
        "save": node(
            "SaveVideo", video=["stream", 0], filename_prefix="r", format="auto", codec="auto"
        ),
    }
    (path,) = server.client.run(graph).files("save")
    with av.open(str(path)) as container:
        found = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    assert found.shape == (frames, 64, 64, 3)


def test_it_makes_way_for_other_prompts_and_goes_on(server):
    async def use():
        async with LiveClient(server.url) as client:
            await running(client)
            await feed_until(client, lambda: client.status["frame"] >= 3, PICTURE)
            other = {"say": node("PreviewAny", source=["number", 0])}
            other["number"] = node("PrimitiveInt", value=5)
            result = await asyncio.to_thread(server.client.run, other)
            assert result.outputs["say"]["text"] == ["5"]
            await client.until(lambda: client.status["state"] == "running")
            # Its frames are counted on, because its memory was kept.
            await feed_until(client, lambda: client.status["frame"] >= 3, PICTURE)
            await stopped(client)

    with queued(server, identity_graph(when_others_wait="let them go first")) as outcome:
        asyncio.run(use())
    assert outcome["result"], outcome


def test_an_interrupt_ends_it_and_the_page_starts_it_again(server):
    async def use():
        async with LiveClient(server.url) as client:
            await running(client)
            await feed_until(client, lambda: client.status["frame"] >= 2, PICTURE)
            await asyncio.to_thread(server.client.interrupt)
            await client.until(lambda: client.status["state"] == "stopped")
            await client.say({"command": "start", "id": 1})
            await running(client)
            await client.send(PICTURE)
            await client.until(lambda: client.results[-1].frame >= 2)
            await stopped(client)

    with queued(server, identity_graph()) as outcome:
        asyncio.run(use())
    assert "error" in outcome
