"""Several copies of queue_folder with one folder of results, and the files they write."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from clips import make_clip
from nonsense_server import running_nonsense

from folder_queue import ledger
from folder_queue.errors import LedgerError
from folder_queue.ledger import LEDGER_NAME, LOCK_NAME, Entry, Ledger, write_json
from folder_queue.parts import part_beside, remove_abandoned

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflows" / "video_to_video.json"


ADD = """
import sys
from pathlib import Path
from folder_queue.ledger import Entry, Ledger
record = Ledger(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(60):
    record.add(f"{sys.argv[2]}{number}.mp4", Entry("print", "x.mp4", 1, 9, 1.5))
"""


def test_processes_lose_no_entry_of_each_other(tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    writers = [
        subprocess.Popen([sys.executable, "-c", ADD, tmp_path, name], cwd=ROOT, **pipes)
        for name in "abc"
    ]
    for writer in writers:
        assert writer.stdout.readline().strip() == b"ready"
    for writer in writers:
        writer.stdin.write(b"go\n")
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    text = (tmp_path / LEDGER_NAME).read_text(encoding="utf-8")
    assert len(json.loads(text)["videos"]) == 180
    assert not list(tmp_path.glob(".*"))


def test_what_another_run_has_done_is_known_at_once(tmp_path):
    mine, other = Ledger(tmp_path), Ledger(tmp_path)
    (tmp_path / "x.mp4").write_text("1")
    entry = Entry("print", "x.mp4", 1, 9, 1.5)
    other.add("a.mp4", entry)
    assert mine.done("a.mp4", "print") == entry


HOLD = """
import sys, time
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def test_a_lock_that_is_held_and_one_whose_holder_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "LOCK_SECONDS", 0.3)
    command_line = [sys.executable, "-c", HOLD, str(tmp_path / LOCK_NAME)]
    with subprocess.Popen(command_line, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline().strip() == b"held"
            mine, entry = Ledger(tmp_path), Entry("print", "x.mp4", 1, 9, 1.5)
            with pytest.raises(LedgerError, match="another process has held"):
                mine.add("a.mp4", entry)
        finally:
            holder.kill()
    # What could not be written is written with the next.
    mine.add("b.mp4", entry)
    assert set(Ledger(tmp_path)._known) == {"a.mp4", "b.mp4"}


def test_two_runs_at_once(tmp_path):
    folder, out = tmp_path / "in", tmp_path / "in-translated"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.mp4").write_text(str(number))
    line = [sys.executable, "queue_folder.py", folder, "--workflow", WORKFLOW, "--server"]
    with running_nonsense(make_clip(tmp_path, frames=3).read_bytes()) as server:
        runs = [
            subprocess.Popen([*line, server.url], cwd=ROOT, stdout=subprocess.DEVNULL)
            for _ in range(2)
        ]
        assert [run.wait(60) for run in runs] == [0, 0]
    assert len(Ledger(out)._known) == 6 and not list(out.glob(".*"))


def test_parts_of_two_writers_are_two_files(tmp_path):
    path = tmp_path / "x.json"
    threads = [
        threading.Thread(target=lambda: [write_json(path, list(range(999))) for _ in range(99)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())) == 999
    assert [each.name for each in tmp_path.iterdir()] == ["x.json"]


def test_parts_of_the_dead_are_removed_but_not_those_of_the_living(tmp_path):
    with part_beside(tmp_path / "x.mp4") as living:
        living.touch()
        dead = living.with_name(living.name.replace("-", "-dead"))
        dead.touch()
        os.utime(dead, (time.time() - 4000,) * 2)
        remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == [living]
    assert not list(tmp_path.iterdir())
