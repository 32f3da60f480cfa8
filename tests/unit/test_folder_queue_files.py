"""Folders and names that queue_folder meets: what is wrong is said first, and breaks nothing."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from clips import make_clip
from nonsense_server import running_nonsense
from permissions import permissions_hold

from folder_queue import command, ledger
from folder_queue.client import ComfyClient
from folder_queue.ledger import LEDGER_NAME
from folder_queue.report import shown

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / "workflows" / "video_to_video.json"
NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_nonsense(make_clip(tmp_path_factory.mktemp("result"), frames=3).read_bytes()) as s:
        yield s


@pytest.fixture
def place(server, tmp_path, monkeypatch, capsys):
    """A folder with a video; `place.run` runs the command on it: (exit code, output, errors)."""

    class Place:
        folder, out = tmp_path / "in", tmp_path / "in-translated"
        asked = 0

        def run(self, *more):
            server.play([])
            arguments = [str(self.folder), "--workflow", str(WORKFLOW), "--server", server.url]
            code = command.main([*arguments, "--retry", "0", *more])
            self.asked = len(server.seen)
            return code, *capsys.readouterr()

        def reports(self):
            text = (self.out / "queue_folder.report.json").read_bytes().decode("utf-8")
            return {each["video"]: each for each in json.loads(text)["videos"]}

    quick = partial(ComfyClient, sleep=lambda seconds: None)
    monkeypatch.setattr(command, "ComfyClient", quick)
    place = Place()
    place.folder.mkdir()
    (place.folder / "a.mp4").write_text("a")
    return place


def refused(place, *more):
    """Run the command, which must refuse in one line before the first video, and return that."""
    code, out, error = place.run(*more)
    assert (code, out, place.asked) == (2, "", 0)
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


# Where the results go


@pytest.mark.parametrize("recursive", [[], ["--recursive"]])
def test_results_beside_the_folder_are_refused_for_what_they_are(place, tmp_path, recursive):
    assert f"--out {tmp_path} holds the videos in" in refused(
        place, "--out", str(tmp_path), *recursive
    )
    (tmp_path / "link").symlink_to(place.folder)
    for out in (place.folder, place.folder / "." / ".." / "in", tmp_path / "link"):
        said = refused(place, "--out", str(out), *recursive)
        assert "is the folder of the videos" in said and str(place.out) in said


def test_a_result_folder_that_cannot_be_one(place, tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    for name in ("loop", "nowhere"):
        assert f"cannot write to the folder of results {tmp_path / name}" in refused(
            place, "--out", str(tmp_path / name)
        )
    assert "is a file, not a folder" in refused(place, "--out", str(place.folder / "a.mp4"))


def test_a_read_only_result_folder(place):
    place.out.mkdir()
    place.out.chmod(0o555)
    with permissions_hold():
        assert f"results {place.out}: Permission denied" in refused(place)


def test_an_input_folder_that_cannot_be_written(place, tmp_path):
    inputs = tmp_path / "input"
    inputs.mkdir()
    inputs.chmod(0o555)
    with permissions_hold():
        assert f"cannot write to {inputs}: Permission denied" in refused(
            place, "--input-dir", str(inputs)
        )


def test_a_report_that_cannot_be_written(place, tmp_path):
    (tmp_path / "folder").mkdir()
    assert "it is a folder" in refused(place, "--report", str(tmp_path / "folder"))
    for name in (str(place.folder / "a.mp4"), str(WORKFLOW), str(place.out / LEDGER_NAME)):
        assert "would replace that file" in refused(place, "--report", name)
    assert "is no folder" in refused(place, "--report", str(place.folder / "a.mp4" / "x.json"))
    (tmp_path / "folder").chmod(0o555)
    with permissions_hold():
        said = refused(place, "--report", str(tmp_path / "folder" / "x.json"))
    assert "cannot write the report" in said and "Permission denied" in said


def test_a_report_that_can_be_written_no_more(place, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_report", fail)
    code, out, _ = place.run()
    assert code == 1 and "cannot write the report" in out and "1 done" in out


def test_a_ledger_that_can_be_written_no_more(place, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    (place.folder / "b.mp4").write_text("b")
    with monkeypatch.context() as patched:
        patched.setattr(ledger, "write_json", fail)
        code, out, _ = place.run()
    assert code == 0 and out.count("the next run will translate it again: cannot write") == 4
    assert sorted(path.name for path in place.out.glob("*.mp4")) == ["a.mp4", "b.mp4"]


def test_a_result_that_has_no_place(place):
    (place.folder / "b.mp4").write_text("b")
    (place.folder / ("x" * 251 + ".mp4")).write_text("c")
    (place.out / "a.mp4").mkdir(parents=True)
    code, *_ = place.run()
    assert (code, place.asked) == (1, 2)
    assert place.reports()["a.mp4"]["error"] == "cannot write a.mp4: it is a folder"
    # The longest name there may be is one for the result, too.
    assert [each["status"] for each in place.reports().values()] == ["failed", "done", "done"]


# What the folder holds


def test_a_folder_that_cannot_be_read(place, tmp_path):
    place.folder.chmod(0o000)
    with permissions_hold():
        assert f"cannot read the folder {place.folder}: Permission denied" in refused(place)
    place.folder.chmod(0o755)
    place.folder = tmp_path / "loop"
    place.folder.symlink_to("loop")
    assert "Too many levels of symbolic links" in refused(place)


def test_subfolders_and_videos_that_cannot_be_read(place):
    for name in ("locked/b.mp4", "open/c.mp4", "open/locked.mp4"):
        (place.folder / name).parent.mkdir(exist_ok=True)
        (place.folder / name).write_text(name)
    (place.folder / "open" / "locked.mp4").chmod(0)
    (place.folder / "locked").chmod(0)
    with permissions_hold():
        code, out, _ = place.run("--recursive")
    (place.folder / "locked").chmod(0o755)
    assert code == 1 and "4 videos: 2 done, 2 failed" in out
    reports = place.reports()
    assert reports["locked"]["error"] == "cannot read the folder: Permission denied"
    assert reports["open/locked.mp4"]["error"] == "cannot read it: Permission denied"


def test_what_is_no_file(place):
    (place.folder / "loop.mp4").symlink_to("loop.mp4")
    (place.folder / "gone.mp4").symlink_to("nothing")
    os.mkfifo(place.folder / "pipe.mp4")
    code, out, _ = place.run()
    assert code == 1 and "4 videos: 1 done, 3 failed" in out
    reports = place.reports()
    assert "symbolic links" in reports["loop.mp4"]["error"]
    assert reports["pipe.mp4"]["error"] == "cannot read it: it is not a regular file"


HOSTILE = [NOT_UTF8, "two\nlines.mp4", "\x1b[2Jclear.mp4", "日本 %d.mp4", "-x.mp4", '"{}\\.mp4']


def test_no_name_breaks_the_ledger_or_the_report(place):
    for name in HOSTILE:
        (place.folder / name).write_text(ascii(name))
    code, out, _ = place.run()
    reports = place.reports()
    assert code == 0 and set(reports) == {"a.mp4", *HOSTILE}
    assert {each["result"] for each in reports.values()} == set(reports)
    # One line for each, and no command for the terminal; twice: as it ends, and in the table.
    assert "\x1b" not in out and out.count("two\\nlines.mp4:") == 1
    assert out.count("\n") == len(reports) + 1 + 2 + len(reports) + 1 + 2
    # The ledger knows them all again.
    code, out, _ = place.run()
    assert code == 0 and f"{len(reports)} skipped" in out and place.asked == 0


def test_folders_whose_names_are_no_text(place, tmp_path):
    for name in ("folder", "out"):
        new = tmp_path / os.fsdecode(f"{name} ".encode() + b"\xe9\xff")
        if name == "folder":
            place.folder.rename(new)
        setattr(place, name, new)
    assert place.run("--out", str(place.out))[0] == 0
    assert place.reports()["a.mp4"]["status"] == "done"


def test_a_terminal_without_the_letters(place, server):
    (place.folder / NOT_UTF8).write_text("b")
    (place.folder / "日本.mp4").write_text("c")
    server.play([])
    done = subprocess.run(
        [sys.executable, "queue_folder.py", place.folder, "--workflow", WORKFLOW]
        + ["--server", server.url],
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert b"caf\\udce9.mp4" in done.stdout and b"3 done" in done.stdout


def test_a_name_in_the_input_folder_that_is_no_text(place):
    (place.folder / "a.mp4").rename(place.folder / NOT_UTF8)
    code, *_ = place.run("--input-dir", str(place.folder))
    assert code == 0 and not list((place.folder / "queue_folder").iterdir())


def test_shown_is_one_line():
    assert shown("ä 日\n\x1b\udce9\u2028") == "ä 日\\n\\x1b\\udce9\\u2028"
