"""A server that is killed at random moments of a video, until the video is through."""

import os
import random
import shutil

import clips
import numpy as np
import pytest
from killed_server import KilledServer
from video_graphs import decode, partial_root, saved, video_graph

pytestmark = [pytest.mark.server, pytest.mark.hostile, pytest.mark.timeout(900)]

FRAMES, EVERY = 32, 4
# Ten kills of one video: what the server is at.
PLAN = (
    *("loading", "saving", "translating", "starting", "saving", "translating"),
    *("saving", "assembling", "starting", "Save Video"),
)
ROUNDS = 5 if os.environ.get("LIVE2DIFF_SOAK") else 1
MINE = "not yours"


def put_mine(output):
    """Write files that are not of this pack wherever it works: those folders that are there."""
    root = output / "live2diff_partial"
    (root / "other").mkdir(parents=True, exist_ok=True)
    folders = [output, root, *(path for path in root.iterdir() if path.is_dir())]
    for folder in folders:
        (folder / "mine.txt").write_text(MINE)
    return [folder / "mine.txt" for folder in folders]


@pytest.mark.parametrize("round_number", range(ROUNDS))
def test_a_video_that_was_killed_ten_times_equals_one_that_was_not(tmp_path, round_number):
    generator = random.Random(round_number)
    clip = clips.make_clip(tmp_path, frames=FRAMES, sounds=("aac",), name="long")
    killed = KilledServer(tmp_path / "server", generator)
    server, changes = killed.server, {"codec": ("h264", "lossless")[round_number % 2]}
    with server:
        graph = video_graph(
            server, clip, steps=2, checkpoint_every=EVERY, save_minutes=0.0, **changes
        )
        whole = saved(server, graph).rename(tmp_path / "whole.mp4")
    shutil.rmtree(partial_root(server))

    newest, parts = 0, sum(stage in ("saving", "translating") for stage in PLAN) + 1
    reached = 0
    for stage in PLAN:
        mine = put_mine(killed.output)
        # Each one comes further than the one before.
        if stage in ("saving", "translating"):
            reached += 1
        segments = reached * FRAMES // EVERY // parts if stage != "loading" else 0
        killed.kill_at(stage, graph, segments)
        # It goes on where it was saved: a kill costs nothing that was on the disk.
        assert killed.went_on_at() in (None, newest), stage
        newest = max(newest, killed.newest_state())
        assert all(path.read_text() == MINE for path in mine)

    mine = put_mine(killed.output)
    assert newest == FRAMES, "the kills came too early"
    with server:
        times, images = decode(found := saved(server, graph))
        (folder,) = {path.parent for path in partial_root(server).glob("*/result.mp4")}
    other_times, other = decode(whole)
    assert times == other_times and len(images) == FRAMES
    assert np.array_equal(images, other) and clips.sound_of(found) == clips.sound_of(whole)
    assert all(path.read_text() == MINE for path in mine)
    left = {path.name for path in folder.iterdir()} - {"saved"}
    assert left == {"about.json", "result.mp4", "mine.txt"}
