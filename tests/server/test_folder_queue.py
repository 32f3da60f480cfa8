"""queue_folder against a real server: six videos, three of them no videos; restarts; Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from comfy_servers import standin_server

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflows" / "video_to_video.json"
SIZE, FRAMES = 64, 9
GOOD = ["a good one.mp4", "b.mkv", "clip10.mp4"]
BROKEN = ["clip2.mp4", "sound only.mp4", "truncated.mp4"]
SMALL = ["--set", f"ImageScale.width={SIZE}", f"ImageScale.height={SIZE}", "13.steps=2"]


def write_clip(path, frames=FRAMES, seed=0):
    from devtools.media import sample_frames, write_video

    write_video(path, sample_frames(frames, SIZE + 16 * seed))
    return path


def write_sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 4096), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of our own: it is stopped and started in between."""
    with standin_server(tmp_path_factory.mktemp("folder_server")) as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six files that call themselves videos."""
    folder = tmp_path_factory.mktemp("six")
    for seed, name in enumerate(GOOD):
        write_clip(folder / name, seed=seed)
    (folder / "clip2.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    write_sound(folder / "sound only.mp4")
    whole = (folder / GOOD[0]).read_bytes()
    # The index of an MP4 is at its end.
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    return folder


def command(server, folder, out, *more):
    script = [sys.executable, str(ROOT / "queue_folder.py"), str(folder), "--out", str(out)]
    return [*script, "--workflow", str(WORKFLOW), "--server", server.url, *SMALL, *more]


def queue_folder(server, folder, out, *more):
    """Run the command as a person does: (exit code, standard output, reports by video)."""
    done = subprocess.run(
        command(server, folder, out, *more),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
    )
    sys.stdout.write(f"{done.stdout}\n{done.stderr}\n")
    data = json.loads((out / "queue_folder.report.json").read_text(encoding="utf-8"))
    return done.returncode, done.stdout, {each["video"]: each for each in data["videos"]}


def frames_in(path):
    from devtools.media import count_frames

    return count_frames(path)


def test_six_videos_three_of_them_broken(server, folder, tmp_path):
    out = tmp_path / "out"
    code, said, videos = queue_folder(server, folder, out)
    assert code == 1
    assert list(videos) == ["a good one.mp4", "b.mkv", "clip2.mp4", "clip10.mp4", *BROKEN[1:]]
    for name in GOOD:
        assert videos[name]["status"] == "done" and videos[name]["attempts"] == 1, videos[name]
        assert videos[name]["frames"] == FRAMES == frames_in(out / f"{Path(name).stem}.mp4")
    for name in BROKEN:
        assert videos[name]["status"] == "failed" and videos[name]["attempts"] == 2, videos[name]
        assert "failed:" in videos[name]["error"]
    results = {path.name for path in out.iterdir() if path.suffix == ".mp4"}
    assert results == {f"{Path(name).stem}.mp4" for name in GOOD}
    assert "6 videos: 3 done, 3 failed" in said and said.count("FAILED after 2 attempts") == 6

    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    code, said, videos = queue_folder(server, folder, out, "--retry", "0")
    assert code == 1
    assert [videos[name]["status"] for name in GOOD] == ["skipped"] * 3
    assert [videos[name]["attempts"] for name in BROKEN] == [1] * 3
    assert before == {path.name: path.stat().st_mtime_ns for path in out.glob("*.mp4")}
    # With the broken ones left out, nothing is left to do, and that is success.
    assert queue_folder(server, folder, out, "--pattern", "*good*;*.mkv;clip10*")[0] == 0


class Restarter:
    """A Watcher that kills the server in the middle of a video and starts it again, once."""

    def __init__(self, server):
        self.server = server
        self.thread = None
        self.statuses = []

    def begin(self, video):
        pass

    def progress(self, progress):
        if self.thread is None and progress.node_id == "13" and progress.value >= 2:
            os.kill(self.server._process.pid, signal.SIGKILL)
            self.server.stop()
            self.thread = threading.Thread(target=self.server.start)
            self.thread.start()

    def end(self, report):
        self.statuses.append(report.status)


@pytest.mark.thorough
def test_a_server_that_is_killed_and_comes_back(server, tmp_path):
    from folder_queue.client import ComfyClient
    from folder_queue.folder_run import FolderRun
    from folder_queue.workflow import load_workflow

    write_clip(tmp_path / "in.mp4", seed=4)
    workflow = load_workflow(WORKFLOW, SMALL[1:])
    run = FolderRun(ComfyClient(server.url), workflow, tmp_path, [Path("in.mp4")], tmp_path / "out")
    restarter = Restarter(server)
    run.run(restarter)
    assert restarter.thread is not None
    restarter.thread.join()
    (report,) = run.reports
    # The lost try does not count.
    assert (report.status, report.attempts, report.error) == ("done", 1, "")
    assert report.frames == FRAMES == frames_in(tmp_path / "out" / "in.mp4")


def test_a_lost_connection_goes_on_with_the_same_prompt(server, tmp_path):
    from folder_queue.client import ComfyClient
    from folder_queue.errors import ConnectionLostError
    from folder_queue.translate import translate_video
    from folder_queue.workflow import load_workflow

    client, seen = ComfyClient(server.url), []

    def lose_once(progress):
        seen.append(progress)
        if len(seen) == 1:
            raise ConnectionLostError("played")

    before = len(client.get("/history"))
    video = write_clip(tmp_path / "in.mp4", seed=5)
    workflow = load_workflow(WORKFLOW, SMALL[1:])
    result = translate_video(client, workflow, video, tmp_path / "out", lose_once)
    assert (result.path, result.frames) == (tmp_path / "out.mp4", FRAMES)
    # It was taken up, not queued again; and once it has ended, it is read from the history.
    assert len(client.get("/history")) == before + 1
    (prompt_id,) = list(client.get("/history?max_items=1"))
    again = client.run({}, prompt_id=prompt_id)
    assert again.entries(workflow.save_node) and not again.executed


def test_ctrl_c_takes_the_prompt_off_the_server(server, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write_clip(folder / "long.mp4", 150, seed=1)
    (folder / "next.mp4").touch()
    process = subprocess.Popen(command(server, folder, out), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not server.client.get("/queue")["queue_running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert server.client.get("/queue")["queue_running"]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    data = json.loads((out / "queue_folder.report.json").read_text(encoding="utf-8"))
    assert [each["status"] for each in data["videos"]] == ["stopped", "not run"]
    assert "Ctrl-C" in data["stopped"]
    deadline = time.monotonic() + 60
    while server.client.get("/queue")["queue_running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not server.client.get("/queue")["queue_running"]


def test_a_workflow_that_the_server_refuses_ends_the_run(server, folder, tmp_path):
    out = tmp_path / "out"
    code, said, videos = queue_folder(server, folder, out, "--set", "1.ckpt_name=none.safetensors")
    assert code == 1
    assert [each["status"] for each in videos.values()] == ["failed"] + ["not run"] * 5
    assert "node 1 (CheckpointLoaderSimple)" in said and "none.safetensors" in said


def test_video_from_folder_walks_a_folder(server, folder):
    """The node, at index 0, 1 and behind the end, as batch count queues it."""
    from folder_queue.errors import PromptError

    inside = server.base / "input" / "walk"
    inside.mkdir()
    for name in GOOD[:2]:
        (inside / name).write_bytes((folder / name).read_bytes())

    def saved(index):
        inputs = {"folder": "walk", "pattern": "*.m*", "index": index, "recursive": False}
        graph = {
            "1": {"class_type": "Live2DiffVideoFromFolder", "inputs": inputs},
            "2": {
                "class_type": "SaveVideo",
                "inputs": {
                    **{"video": ["1", 0], "filename_prefix": ["1", 1]},
                    **{"format": "auto", "codec": "auto"},
                },
            },
        }
        return server.client.run(graph).files()[0].name

    assert saved(0).startswith("a good one_") and saved(1).startswith("b_")
    with pytest.raises(PromptError, match="all 2 videos are done"):
        saved(2)
