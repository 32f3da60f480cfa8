"""A run over a folder: skip, retry, stop, report; with one video's translation played."""

import json
from pathlib import Path

import pytest

from folder_queue import folder_run, report
from folder_queue.client import ComfyClient
from folder_queue.command import build_parser, default_out, main, prepare
from folder_queue.errors import (
    PromptError,
    PromptRefusedError,
    ServerGoneError,
    UploadRefusedError,
    UsageError,
)
from folder_queue.folder_run import FolderRun, result_names
from folder_queue.ledger import LEDGER_NAME, Entry, Ledger
from folder_queue.translate import VideoResult, safe_name
from folder_queue.workflow import load_workflow

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ROOT / "workflows" / "video_to_video.json"


class Silent:
    """A Watcher that keeps what it is told."""

    def __init__(self):
        self.told = []

    def begin(self, video):
        self.told.append(video)

    def progress(self, progress):
        pass

    def end(self, each):
        self.told.append(each.status)


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Three files; `play` says, for a file's name, what each of its translations ends with."""

    class Stage:
        folder, out = tmp_path / "in", tmp_path / "out"
        play, calls, pauses = {}, [], []

        def run(self, *settings, **options):
            videos = sorted(path.relative_to(self.folder) for path in self.folder.iterdir())
            workflow = load_workflow(PLAIN, settings)
            client = ComfyClient("http://nowhere.invalid", sleep=self.pauses.append)
            run = FolderRun(client, workflow, self.folder, videos, self.out, **options)
            self.calls.clear()
            run.run(Silent())
            return run

        def statuses(self, *settings, **options):
            return [each.status for each in self.run(*settings, **options).reports]

    def translate(client, workflow, video, out, on_progress, **_):
        stage.calls.append(video.name)
        ends = stage.play.get(video.name)
        if ends and (end := ends.pop(0)) is not None:
            raise end
        path = out.with_name(f"{out.name}.mp4")
        path.write_text(f"translated {video.read_text()}")
        return VideoResult(path, 9, 1.26)

    monkeypatch.setattr(folder_run, "translate_video", translate)
    stage = Stage()
    stage.folder.mkdir()
    for name in "abc":
        (stage.folder / f"{name}.mp4").write_text(name)
    return stage


def test_all_videos_then_none(stage):
    run = stage.run()
    assert run.succeeded and stage.calls == ["a.mp4", "b.mp4", "c.mp4"]
    assert (stage.out / "b.mp4").read_text() == "translated b"
    again = stage.run()
    assert again.succeeded and not stage.calls
    assert [each.status for each in again.reports] == ["skipped"] * 3
    assert again.reports[0].frames == 9


def test_only_what_changed_is_done_again(stage):
    stage.run()
    (stage.folder / "a.mp4").write_text("new")
    (stage.out / "b.mp4").unlink()
    assert stage.statuses() == ["done", "done", "skipped"]
    (stage.out / "c.mp4").write_text("cut")
    assert stage.statuses() == ["skipped", "skipped", "done"]
    assert stage.statuses("13.seed=5") == ["done"] * 3


def test_a_failure_is_tried_once_more(stage):
    stage.play = {"a.mp4": [PromptError("once")], "b.mp4": [PromptError("x"), PromptError("twice")]}
    run = stage.run()
    assert [(each.status, each.attempts) for each in run.reports] == [
        ("done", 2),
        ("failed", 2),
        ("done", 1),
    ]
    assert run.reports[0].error == "" and run.reports[1].error == "twice"
    assert not run.succeeded and not run.stopped
    # What failed is not taken for done.
    assert stage.statuses() == ["skipped", "done", "skipped"]


def test_what_another_try_cannot_help(stage):
    stage.play = {"a.mp4": [UploadRefusedError("too large")]}
    assert stage.run().reports[0].attempts == 1
    stage.play = {"a.mp4": [OSError("disk full")] * 4}
    assert stage.run("13.seed=1", retries=3).reports[0].attempts == 4
    # Each try comes later than the one before.
    assert stage.pauses == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("error", [ServerGoneError("gone"), PromptRefusedError("no such model")])
def test_what_ends_the_run(stage, error):
    stage.play = {"b.mp4": [error]}
    run = stage.run()
    assert [each.status for each in run.reports] == ["done", "failed", "not run"]
    assert run.stopped == str(error) and not run.succeeded and not run.interrupted


def test_ctrl_c_keeps_what_is_done(stage):
    stage.play = {"b.mp4": [KeyboardInterrupt()]}
    run = stage.run()
    assert [each.status for each in run.reports] == ["done", "stopped", "not run"]
    assert run.interrupted and not run.succeeded
    assert stage.statuses() == ["skipped", "done", "done"]


def test_a_video_that_cannot_be_read(stage):
    (stage.folder / "b.mp4").unlink()
    (stage.folder / "b.mp4").symlink_to("nothing")
    run = stage.run()
    assert [each.status for each in run.reports] == ["done", "failed", "done"]
    assert "cannot read it" in run.reports[1].error


def test_a_result_that_is_removed_at_once(stage, monkeypatch):
    """By another program, between its download and its entry in the ledger."""

    def vanish(client, workflow, video, out, *_, **__):
        return VideoResult(out.with_name("gone.mp4"), 9, 1.0)

    monkeypatch.setattr(folder_run, "translate_video", vanish)
    run = stage.run()
    assert [each.status for each in run.reports] == ["failed"] * 3
    assert "No such file" in run.reports[0].error


# Ledger, names, table


def test_a_damaged_ledger_is_named(tmp_path):
    for text in ("{", "[]", '{"version": 9}', '{"version": 1, "videos": {"a": {"x": 1}}}'):
        (tmp_path / LEDGER_NAME).write_text(text)
        with pytest.raises(UsageError, match="delete it"):
            Ledger(tmp_path)


def test_the_ledger_survives(tmp_path):
    (tmp_path / "ä.mp4").write_text("1234")
    entry = Entry("print", "ä.mp4", 4, 9, 1.5)
    Ledger(tmp_path).add("sub/ä.mov", entry)
    assert Ledger(tmp_path).done("sub/ä.mov", "print") == entry
    assert Ledger(tmp_path).done("sub/ä.mov", "other") is None
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_results_never_share_a_name():
    videos = [Path(name) for name in ("a.mp4", "B.mov", "b.MP4", "x/a.mp4", "v1.2.mp4")]
    names = [path.as_posix() for path in result_names(videos)]
    assert names == ["a", "B.mov", "b.MP4", "x/a", "v1.2"]


@pytest.mark.parametrize("out", ["in", "in/../in", "link"])
def test_results_never_go_among_the_sources(stage, tmp_path, out):
    (tmp_path / "link").symlink_to(stage.folder, target_is_directory=True)
    stage.out = tmp_path / out
    with pytest.raises(UsageError, match="choose another --out"):
        stage.run()


def test_results_never_overwrite_a_source(tmp_path):
    # Recursively, from tmp/in into tmp: tmp/in/in/a.mp4 would become tmp/in/a.mp4.
    with pytest.raises(UsageError, match="choose another --out"):
        folder_run.check_folders(
            tmp_path / "in", tmp_path, [Path("a.mp4"), Path("in/a.mp4")], [Path("a"), Path("in/a")]
        )


@pytest.mark.parametrize(
    "stem, name", [("clip 1", "clip_1"), ("%date%/../x", "_date_x"), ("日本", "_"), ("", "video")]
)
def test_names_on_the_server_are_harmless(stem, name):
    assert safe_name(stem) == name


def test_table_and_report(stage, tmp_path):
    stage.play = {"b.mp4": [PromptError("node 8 failed:\n no video"), PromptError("no\nvideo")]}
    run = stage.run()
    assert report.table(run.reports).splitlines() == [
        "video  frames  seconds  result",
        "-----  ------  -------  ------",
        "a.mp4       9      1.3  a.mp4",
        "b.mp4       -        -  FAILED after 2 attempts: no video",
        "c.mp4       9      1.3  c.mp4",
    ]
    assert report.summary(run) == "3 videos: 2 done, 1 failed"
    path = tmp_path / "sub" / "report.json"
    report.write_report(path, run, PLAIN, 3.21)
    data = json.loads(path.read_text(encoding="utf-8"))
    assert data["succeeded"] is False and data["seconds"] == 3.2
    assert data["videos"][1]["error"] == "no\nvideo"


# The command line


def options(stage, *more):
    return build_parser().parse_args([str(stage.folder), "--workflow", str(PLAIN), *more])


@pytest.mark.parametrize(
    "more, words",
    [
        (["--pattern", "*.webm"], "no file in .* matches '[*].webm'"),
        (["--retry", "-1"], "take 0 or more"),
        (["--input-dir", "/nowhere"], "--input-dir: there is no folder"),
        (["--set", "9.x=1"], "has no input x"),
        (["--server", "http://127.0.0.1:9"], "no ComfyUI answers at http://127.0.0.1:9; start it"),
    ],
)
def test_what_cannot_be_run_is_one_line(stage, more, words):
    with pytest.raises(UsageError, match=words):
        prepare(options(stage, *more))
    assert not stage.out.exists()


def test_usage_errors_are_exit_code_2(stage, capsys):
    assert main([str(stage.folder / "gone"), "--workflow", str(PLAIN)]) == 2
    assert capsys.readouterr().err.startswith("error: there is no folder")


def test_results_inside_the_folder_are_no_sources(stage, monkeypatch):
    monkeypatch.setattr(ComfyClient, "why_down", lambda self: "")
    out = stage.folder / "done"
    out.mkdir()
    (out / "a.mp4").touch()
    run = prepare(options(stage, "--recursive", "--out", str(out)))
    assert [video.as_posix() for video in run.videos] == ["a.mp4", "b.mp4", "c.mp4"]
    assert default_out(stage.folder).name == "in-translated"
