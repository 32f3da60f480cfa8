"""The queue_folder command, as a process, against servers that answer nonsense: it always ends."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import clips
import pytest
from nonsense import DOCUMENTS, NOT_JSON, VALUES, closes, document, status
from nonsense_server import running_nonsense

pytestmark = pytest.mark.hostile

ROOT = Path(__file__).resolve().parents[2]
VIDEOS = 25


def nonsense(generator):
    """Pick what the server says to each video; lost connections are waited for, so few break."""
    picked = [
        document(generator.choice(DOCUMENTS), generator.choice([*VALUES, *NOT_JSON]))
        for _ in range(VIDEOS - 6)
    ]
    codes = (400, 401, 403, 404, 413, 418, 500, 502)
    endpoints = ("upload", "ws", "queue", "prompt", "history", "view")
    picked += [status(generator.choice(endpoints), generator.choice(codes)) for _ in range(5)]
    picked.append(closes(generator.choice(("upload", "queue", "history", "view"))))
    generator.shuffle(picked)
    return picked


@pytest.mark.parametrize("seed", [1, 2])
def test_it_says_a_sentence_for_each_video_and_ends(tmp_path, seed):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for number in range(VIDEOS + 1):
        (folder / f"{number}.mp4").write_text(str(number))
    command = [sys.executable, str(ROOT / "queue_folder.py"), str(folder), "--out", str(out)]
    command += ["--workflow", str(ROOT / "workflows" / "video_to_video.json"), "--retry", "0"]
    with running_nonsense(clips.make_clip(tmp_path, frames=3).read_bytes()) as server:
        server.play(nonsense(random.Random(seed)))
        start = time.monotonic()
        done = subprocess.run(
            [*command, "--server", server.url], capture_output=True, text=True, timeout=150
        )
    sys.stdout.write(done.stdout + done.stderr)
    assert done.returncode == 1 and time.monotonic() - start < 90
    assert "Traceback" not in done.stdout + done.stderr
    report = json.loads((out / "queue_folder.report.json").read_text(encoding="utf-8"))
    *wrong, last = report["videos"]
    assert last["status"] == "done" and len(wrong) == VIDEOS
    for video in wrong:
        assert video["status"] == "done" or 10 < len(video["error"]) < 700, video
    assert sum(video["status"] == "failed" for video in wrong) > VIDEOS // 2
