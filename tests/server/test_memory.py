"""Stream Video's memory does not grow with the length of the video, in the real server process."""

import re
import shutil
import sys
from pathlib import Path

import clips
import pytest
from video_graphs import decode, node, saved, video_graph

pytestmark = [
    pytest.mark.server,
    pytest.mark.timeout(6 * 3600),
    pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc"),
]
# Large enough that a second cache, or a picture kept of every frame, is more than the limit.
CACHE_MB, SIDE, CLIP_SIZE = 120, 96, (1280, 720)


def peak_mb(process_id):
    """Highest resident memory of a process so far."""
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024


def cache_mb(log):
    """Size of a stream's memory, as the server has logged it."""
    return float(re.search(r"the stream's memory takes ([\d.]+) MB", log).group(1))


def depth_graph(server, clip):
    """A graph with depth, and with a cache for each of two denoising steps."""
    graph = video_graph(
        server,
        clip,
        width=SIDE,
        height=SIDE,
        steps=4,
        denoise=0.5,
        codec="h264",
        checkpoint_every=10,
        depth_model=["depth", 0],
    )
    graph["depth"] = node("Live2DiffLoadDepthModel", depth_model="dpt_hybrid-midas-501f0c75.pt")
    return graph


def plain_graph(server, clip):
    """A graph that is quick: thousands of frames with depth take hours on two cores."""
    return video_graph(server, clip, denoise=0.25, codec="h264", checkpoint_every=100)


@pytest.mark.parametrize(
    "graph_of, size, cache, short, long, limit",
    [
        pytest.param(depth_graph, CLIP_SIZE, CACHE_MB, 20, 60, 40, marks=pytest.mark.long),
        pytest.param(plain_graph, clips.SIZE, 0, 30, 150, 60, marks=pytest.mark.long),
        pytest.param(plain_graph, clips.SIZE, 0, 300, 3000, 60, marks=pytest.mark.marathon),
    ],
)
def test_long_videos_take_no_more_memory(
    tmp_path, record_property, graph_of, size, cache, short, long, limit
):
    """The peaks of two lengths differ by `limit` MB at most, the memory takes over `cache` MB."""
    from devtools.hosts import current_host
    from devtools.server import ComfyServer
    from devtools.standins import ensure_standins
    from devtools.workspace import prepare_workspace

    base = prepare_workspace(tmp_path / "server", [ensure_standins()])
    peaks = {}
    with ComfyServer(current_host(), base, cpu=True, arguments=["--fp32-unet"]) as server:
        # The first runs load models and grow the allocator's pools.
        for name, frames in (("load", 12), ("warm", 20), ("short", short), ("long", long)):
            clip = clips.make_clip(tmp_path, frames=frames, size=size, name=name)
            path = saved(server, graph_of(server, clip))
            peaks[name] = peak_mb(server.process_id)
            assert len(decode(path)[0]) == frames
            shutil.rmtree(base / "temp", ignore_errors=True)
        assert cache_mb(server.log()) > cache
    record_property("peak_rss_mb", peaks)
    assert peaks["long"] - peaks["short"] <= limit, peaks
