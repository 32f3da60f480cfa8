"""Stream Video in a real ComfyUI server: every frame, in its time, with its sound."""

import time
from fractions import Fraction

import av
import clips
import numpy as np
import pytest
from video_graphs import decode, node, saved, video_graph

from folder_queue.errors import PromptError

pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    "frames", [12, *(pytest.param(count, marks=pytest.mark.thorough) for count in (1, 5))]
)
def test_frames_times_and_sound_stay(comfy_server, tmp_path, frames):
    clip = clips.make_clip(tmp_path, frames=frames, sounds=("aac",), name=f"clip{frames}")
    path = saved(comfy_server, video_graph(comfy_server, clip))
    times, images = decode(path)
    assert len(images) == frames and images.shape[1:] == (64, 64, 3)
    assert times == pytest.approx(decode(clip)[0], abs=1e-3)
    assert clips.sound_of(path) == clips.sound_of(clip)


def test_equals_the_stream_sampler(comfy_server, tmp_path):
    clip = clips.make_clip(tmp_path, "h264", frames=11, size=(64, 64), name="square")
    graph = video_graph(comfy_server, clip, size="keep")
    _, streamed = decode(saved(comfy_server, graph))
    sampler = {
        k: v
        for k, v in graph["stream"]["inputs"].items()
        if k in ("model", "positive", "negative", "seed", "steps", "denoise", "cfg")
    }
    graph |= {
        "parts": node("GetVideoComponents", video=["load", 0]),
        "encode": node("VAEEncode", pixels=["parts", 0], vae=["checkpoint", 2]),
        "stream": node("Live2DiffStreamSampler", frames=["encode", 0], **sampler),
        "decode": node("VAEDecode", samples=["stream", 0], vae=["checkpoint", 2]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="s"),
    }
    from PIL import Image

    files = comfy_server.client.run(graph).files("save")
    sampled = np.stack([np.asarray(Image.open(file)) for file in files])
    # Core decodes to floats, we to bytes: half a grey level in, about one out.
    assert np.abs(streamed.astype(int) - sampled).mean() < 2


def partial_folder(server):
    return server.base / "output" / "live2diff_partial"


def partial_states(server):
    return sorted(partial_folder(server).glob("*/state_*.safetensors"))


@pytest.mark.thorough
def test_killed_and_resumed_is_uninterrupted(tmp_path):
    from devtools.hosts import current_host
    from devtools.server import ComfyServer
    from devtools.standins import ensure_standins
    from devtools.workspace import prepare_workspace

    clip = clips.make_clip(tmp_path, frames=40, sounds=("aac",), name="long")
    base = prepare_workspace(tmp_path / "server", [ensure_standins()])
    server = ComfyServer(current_host(), base, cpu=True)
    with server:
        graph = video_graph(server, clip, save_minutes=0.0)
        server.client.queue_prompt(graph)
        deadline = time.monotonic() + 120
        while not partial_states(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        server.kill()
    assert partial_states(server)
    with ComfyServer(current_host(), base, cpu=True) as again:
        resumed = saved(again, graph)
        assert "going on at frame" in again.log()
        assert not partial_states(again)
        graph["save"]["inputs"]["filename_prefix"] = "whole"
        graph["stream"]["inputs"]["crf"] = 19  # lossless does not use it; the node runs again
        uninterrupted = saved(again, graph)
    times, images = decode(resumed)
    other_times, other = decode(uninterrupted)
    assert times == other_times and len(images) == 40
    assert (images == other).all()


@pytest.mark.thorough
def test_interrupt_leaves_a_playable_file(comfy_server, tmp_path):
    clip = clips.make_clip(tmp_path, frames=60, name="stopped")
    graph = video_graph(comfy_server, clip, seed=77)
    seen = []

    def stop(progress):
        if progress.node_id == "stream" and progress.value >= 14 and not seen:
            seen.append(progress)
            comfy_server.client.interrupt()

    with pytest.raises(PromptError, match="interrupted"):
        comfy_server.client.run(graph, stop)
    (folder,) = {state.parent for state in partial_states(comfy_server)}
    _, done = decode(folder / "partial.mp4")
    assert 13 <= len(done) < 60
    _, images = decode(saved(comfy_server, graph))
    assert len(images) == 60 and (images[: len(done)] == done).all()


@pytest.mark.thorough
def test_a_video_that_cannot_be_saved_is_kept_over_restarts(tmp_path):
    """Save Video fails; another prompt and a restart later, the same graph saves it at once."""
    from devtools.hosts import current_host
    from devtools.server import ComfyServer
    from devtools.standins import ensure_standins
    from devtools.workspace import prepare_workspace

    clip = clips.make_clip(tmp_path, frames=20, sounds=("aac",), name="kept")
    other = clips.make_clip(tmp_path, frames=3, name="other")
    base = prepare_workspace(tmp_path / "server", [ensure_standins()])
    in_the_way = base / "output" / "folder"
    with ComfyServer(current_host(), base, cpu=True) as server:
        graph = video_graph(server, clip)
        graph["save"]["inputs"]["filename_prefix"] = "folder/v"
        in_the_way.write_text("a file where the video is to be saved")
        with pytest.raises(PromptError):
            server.client.run(graph)
        (kept,) = partial_folder(server).glob("*/result.mp4")
        wait_for(lambda: f"is kept: {kept}" in server.log())
        saved(server, video_graph(server, other))
    in_the_way.unlink()
    with ComfyServer(current_host(), base, cpu=True) as again:
        assert kept.exists()
        path = saved(again, graph)
        assert f"was kept: {kept}" in again.log() and "each stage at work" not in again.log()
        assert len(decode(path)[1]) == 20 and clips.sound_of(path) == clips.sound_of(clip)
        # Its prompt has ended well: it goes when the host lets go of it.
        wait_for(lambda: (kept.parent / "saved").exists())
        saved(again, video_graph(again, other, seed=6))
        saved(again, video_graph(again, other, seed=7))
        assert not kept.parent.exists()


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_no_video_says_what_was_found(comfy_server, tmp_path):
    sound = clips.make_sound(tmp_path)
    with pytest.raises(PromptError, match="(?i)audio|sound|no video"):
        comfy_server.client.run(video_graph(comfy_server, sound))


def test_rate_is_kept(comfy_server, tmp_path):
    clip = clips.make_clip(tmp_path, frames=4, name="rate")
    path = saved(comfy_server, video_graph(comfy_server, clip, codec="h264"))
    with av.open(str(path)) as out, av.open(str(clip)) as original:
        rates = [Fraction(c.streams.video[0].average_rate) for c in (out, original)]
    assert rates[0] == rates[1]
