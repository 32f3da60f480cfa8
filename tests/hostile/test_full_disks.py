"""Disks that fill up: a clear error, nothing lost, the server goes on, and so does the video."""

import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import clips
import numpy as np
import pytest
from comfy_servers import standin_base
from live_graphs import SAMPLING, live2diff_models
from nonsense_server import running_nonsense
from small_disk import FileLimit, need, small_disk
from video_graphs import decode, node, partial_root, saved, video_graph

from folder_queue.errors import PromptError

pytestmark = [pytest.mark.server, pytest.mark.hostile]

ROOT = Path(__file__).resolve().parents[2]
FRAMES, EVERY = 20, 4
# The stand-in's saved states are 35 MB each, and a run needs room for three.
MEGABYTES = 200
FULL = r"(?i)disk is full|no space left|file too large"
KINDS = pytest.mark.parametrize("kind", ["tmpfs", "limit"])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A server whose output folder is a small disk: (server, disk or None)."""
    base = standin_base(tmp_path_factory.mktemp("server"))
    from devtools.hosts import current_host
    from devtools.server import ComfyServer

    with small_disk(base / "output", MEGABYTES) as disk:
        # The limit of sizes would count for the log, too.
        with ComfyServer(current_host(), base, cpu=True, log_path=Path("/dev/null")) as server:
            yield server, disk


@pytest.fixture
def server(place):
    yield place[0]
    for path in (place[0].base / "output").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def disk(request, kind, place, server):
    made = need(place[1]) if kind == "tmpfs" else FileLimit(server.process_id)
    yield made
    made.free()


class Clip:
    """A clip on the server, its graph, and what it becomes without hindrance."""

    def __init__(self, server, folder, name, **sound):
        clip = clips.make_clip(folder, "h264_mkv", frames=FRAMES, name=name, **sound)
        self._graph = video_graph(server, clip, steps=2, checkpoint_every=EVERY)
        self._minutes = 0.0
        found = saved(server, self.graph())
        self.whole = Path(shutil.move(found, folder / f"{name} whole{found.suffix}"))
        shutil.rmtree(partial_root(server))

    def graph(self, **changes):
        """Return a graph that the host has not run, and that saves states at every part's end.

        The host keeps the results of equal graphs. This input does not change them.
        """
        self._minutes += 1e-6
        stream = self._graph["stream"]
        inputs = {**stream["inputs"], "save_minutes": self._minutes, **changes}
        return {**self._graph, "stream": {**stream, "inputs": inputs}}

    def check(self, path):
        """Assert that a result equals the one without hindrance."""
        (times, images), (other_times, other) = decode(path), decode(self.whole)
        assert times == other_times and len(images) == FRAMES
        assert np.array_equal(images, other)
        assert clips.sound_of(path) == clips.sound_of(self.whole)


@pytest.fixture(scope="module")
def clip(place, tmp_path_factory):
    return Clip(place[0], tmp_path_factory.mktemp("clip"), "short", sounds=("aac",))


@pytest.fixture(scope="module")
def loud(place, tmp_path_factory):
    """A clip of little picture and 60 MB of sound, which only the result has."""
    sound = {"sounds": ("pcm_s16le",) * 6, "sound_seconds": 105}
    return Clip(place[0], tmp_path_factory.mktemp("loud"), "loud", **sound)


class Filler:
    """Fills the disk when Stream Video reports so much progress; keeps what it reported."""

    def __init__(self, disk=None, at=0):
        self._disk, self._at, self.values = disk, at, []

    def __call__(self, progress):
        if progress.node_id != "stream":
            return
        self.values.append(progress.value)
        if self._disk is not None and progress.value >= self._at:
            self._disk.fill()
            self._disk = None


def still_serves(server):
    """Run a prompt that writes no file."""
    graph = {"a": node("PrimitiveInt", value=3), "b": node("PreviewAny", source=["a", 0])}
    assert server.client.run(graph).outputs["b"]["text"] == ["3"]


def frames_safe(failed):
    return int(re.search(r"(\d+) frames are safe in", str(failed.value))[1])


@KINDS
def test_in_mid_video(server, clip, disk):
    graph = clip.graph()
    with pytest.raises(PromptError, match=FULL) as failed:
        server.client.run(graph, Filler(disk, 9))
    safe = frames_safe(failed)
    assert safe in (8, 12, 16)
    still_serves(server)
    disk.free()
    going_on = Filler()
    (path,) = server.client.run(graph, going_on).files("save")
    assert min(going_on.values) >= safe
    clip.check(path)


@KINDS
def test_before_the_first_frame(server, clip, disk):
    graph = clip.graph()
    disk.fill()
    with pytest.raises(PromptError, match=FULL + "|MB free|kB free|0 bytes? free|cannot be used"):
        server.client.run(graph)
    still_serves(server)
    assert not [path for path in partial_root(server).glob("*") if path.is_dir()]
    disk.free()
    clip.check(saved(server, graph))


@KINDS
def test_while_the_result_is_assembled(server, loud, disk, kind):
    """States and segments fit, and the sound does not, which comes in at the end."""
    graph = loud.graph()
    disk.fill(leave=45_000_000 if kind == "limit" else 118_000_000)
    with pytest.raises(PromptError, match=FULL) as failed:
        server.client.run(graph)
    assert frames_safe(failed) == FRAMES
    still_serves(server)
    disk.free()
    going_on = Filler()
    (path,) = server.client.run(graph, going_on).files("save")
    assert going_on.values == [], "no frame is translated again"
    loud.check(path)


@pytest.mark.parametrize("kind", ["tmpfs"])
def test_while_the_result_is_saved(server, loud, disk):
    """By the host's Save Video: there is room for the result, and not for its copy."""
    graph = loud.graph(checkpoint_every=0)
    disk.fill(leave=90_000_000)
    with pytest.raises(PromptError, match=FULL):
        server.client.run(graph)
    still_serves(server)
    disk.free()
    again = Filler()
    (path,) = server.client.run(graph, again).files("save")
    assert again.values == []
    loud.check(path)


@KINDS
def test_save_stream(server, disk):
    """The file that was saved before is still there, and the stream goes on."""
    step = {
        **live2diff_models(),
        "image": node("EmptyImage", width=64, height=64, batch_size=3, color=0x336699),
        "step": node(
            "Live2DiffStreamStep",
            **{**SAMPLING, "steps": 2, "vae": ["checkpoint", 2], "image": ["image", 0]},
            **{"stream": "full", "during_warmup": "pass through", "finish": False},
            **{"on_prompt_change": "keep cache", "max_idle_minutes": 30, "max_total_gb": 8.0},
        ),
        "index": node("PreviewAny", source=["step", 1]),
    }
    save = {"save": node("Live2DiffSaveStream", stream="full", file_name="full")}
    server.client.run(step)
    server.client.run(save)
    folder = server.base / "output" / "live2diff"
    (path,) = folder.iterdir()
    before = path.read_bytes()
    step["image"]["inputs"]["color"] = 0x996633
    index = server.client.run(step).outputs["index"]
    disk.fill(leave=1_000_000)
    with pytest.raises(PromptError, match="cannot be written to .*full.safetensors.*Is the disk"):
        server.client.run(save)
    assert [each.name for each in folder.iterdir()] == [path.name] and path.read_bytes() == before
    step["image"]["inputs"]["color"] = 0x663399
    assert int(server.client.run(step).outputs["index"]["text"][0]) > int(index["text"][0])
    disk.free()
    server.client.run(save)
    assert path.read_bytes() != before


def queue_folder(folder, out, server, limit=None):
    """Run the command, which may write no file longer than `limit`: (exit code, what it said)."""

    def limited():
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    command = [sys.executable, str(ROOT / "queue_folder.py"), str(folder), "--out", str(out)]
    command += ["--workflow", str(ROOT / "workflows" / "video_to_video.json")]
    command += ["--server", server.url, "--retry", "0"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=folder, preexec_fn=limited
    )
    said = done.stdout + done.stderr
    sys.stdout.write(said)
    assert "Traceback" not in said
    return done.returncode, said


@KINDS
@pytest.mark.parametrize("leave", [8192, 0])
def test_queue_folders_results(tmp_path, kind, leave):
    """There is room for the report, or for nothing at all."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}.mp4").write_text(name)
    result = clips.make_clip(tmp_path, "mjpeg", frames=96).read_bytes()
    assert len(result) > 10_000
    with small_disk(out, 1) as mounted, running_nonsense(result) as server:
        if kind == "tmpfs":
            need(mounted).fill(leave)
        code, said = queue_folder(folder, out, server, leave if kind == "limit" else None)
        assert code == 1 and re.search(FULL, said)
        assert not [path for path in out.iterdir() if path.suffix in (".mp4", ".mov", ".part")]
        if mounted is not None:
            mounted.free()
        assert queue_folder(folder, out, server)[0] == 0
        report = json.loads((out / "queue_folder.report.json").read_text(encoding="utf-8"))
        assert [video["status"] for video in report["videos"]] == ["done", "done"]
