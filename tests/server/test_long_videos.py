"""Long videos on a real server: killed in the middle, the same frames; longer, the same memory."""

import os
import re
import shutil
import sys
import time
from pathlib import Path

import numpy
import pytest
from video_graphs import decode, node, partial_root, saved

SECONDS = 300
FRAMES = 40


@pytest.fixture
def server(tmp_path):
    """A server that has stand-ins of StreamingT2V and of the enhancer only; not started yet."""
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH is not set (python3 dev.py test sets it)")
    from devtools.hosts import current_host
    from devtools.server import ComfyServer
    from devtools.standin_t2v import write_config, write_enhancer, write_t2v
    from devtools.workspace import prepare_workspace

    models = tmp_path / "given" / "streamingt2v"
    models.mkdir(parents=True)
    write_t2v(models / "streaming_t2v.ckpt")
    write_config(models / "config.json")
    write_enhancer(models / "non_ema_0035000.pth")
    base = prepare_workspace(tmp_path / "server", [models.parent])
    server = ComfyServer(current_host(), base, cpu=True)
    yield server
    server.stop()


def graph(frames=FRAMES, save_minutes=0.0):
    """Text to a long video, enhanced."""
    text = {"positive": ["positive", 0], "negative": ["negative", 0], "vae": ["load", 3]}
    files = {"codec": "lossless", "crf": 18, "save_minutes": save_minutes}
    return {
        "load": node("Live2DiffLoadStreamingT2V", model="streaming_t2v.ckpt"),
        "enhancer": node("Live2DiffLoadVideoEnhancer", enhancer="non_ema_0035000.pth"),
        "positive": node("CLIPTextEncode", clip=["load", 1], text="a boat"),
        "negative": node("CLIPTextEncode", clip=["load", 1], text=""),
        "long": node(
            "Live2DiffLongVideo",
            model=["load", 0],
            frames=frames,
            seconds=0.0,
            width=64,
            height=64,
            seed=5,
            steps=1,
            text_guidance=7.5,
            anchor_guidance=7.5,
            eta=1.0,
            checkpoint_every=8,
            **text,
            **files,
        ),
        "enhance": node(
            "Live2DiffEnhanceVideo",
            enhancer=["enhancer", 0],
            video=["long", 0],
            width=64,
            height=80,
            seed=5,
            steps=2,
            guidance=7.5,
            chunk=8,
            overlap=2,
            blending="x0 (published code)",
            checkpoint_every=6,
            **text,
            **files,
        ),
        "save": node(
            "SaveVideo", video=["enhance", 0], filename_prefix="v", format="auto", codec="auto"
        ),
    }


def states(server):
    """The saved states of unfinished runs; they are named by the frames that had entered."""
    found = partial_root(server).glob("*/state_*.safetensors")
    return [path for path in found if not list(path.parent.glob("result.*"))]


def results(server):
    """The finished results that no node has saved yet."""
    return list(partial_root(server).glob("*/result.*"))


def wait_until(server, found, count):
    """Wait until `found` lists so many files."""
    deadline = time.monotonic() + SECONDS
    while len(found(server)) < count:
        assert time.monotonic() < deadline, server.log()[-2000:]
        time.sleep(0.01)


def test_killed_in_a_chunk_and_in_the_enhancer_it_goes_on_to_the_same_frames(server):
    # In the long video, whose states come every 8 frames.
    server.start()
    server.client.queue_prompt(graph())
    wait_until(server, states, 2)
    server.kill()
    assert not results(server)

    # In the enhancer, beside the finished long video.
    server.start()
    server.client.queue_prompt(graph())
    wait_until(server, results, 1)
    wait_until(server, states, 1)
    server.kill()
    assert len(results(server)) == 1
    assert "going on at frame" in server.log()

    server.start()
    again = decode(saved(server, graph()))[1]
    assert len(again) == FRAMES
    log = server.log()
    assert "going on at frame" in log

    # Uninterrupted. The host caches results by the inputs; the pack does not count this one.
    shutil.rmtree(partial_root(server))
    whole = decode(saved(server, graph(save_minutes=1.0)))[1]
    anew = server.log()[len(log) :]
    assert anew.count("each stage at work") == 2 and "going on at frame" not in anew
    assert numpy.array_equal(again, whole)


def peak_mb(process_id):
    """Highest resident memory of a process so far."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024


@pytest.mark.timeout(6 * 3600)
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    "short, long",
    [
        pytest.param(40, 120, marks=pytest.mark.long),
        pytest.param(200, 2000, marks=pytest.mark.marathon),
    ],
)
def test_longer_videos_take_no_more_memory(server, record_property, short, long):
    server.start()
    peaks = {}
    # The first run loads models and grows the allocator's pools.
    for name, frames in (("warm", 40), ("short", short), ("long", long)):
        made = graph(frames)
        made["long"]["inputs"]["seed"] = len(peaks)
        assert len(decode(saved(server, made))[0]) == frames
        peaks[name] = peak_mb(server.process_id)
    record_property("peak_rss_mb", peaks)
    sys.stdout.write(f"peak memory in MB: {peaks}\n")
    assert peaks["long"] - peaks["short"] <= 60, peaks
