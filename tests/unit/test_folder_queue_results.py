"""What comes back from a server: a video is kept, anything else is a failure of its video."""

import json
from functools import partial
from pathlib import Path

import pytest
from clips import KINDS, make_clip, make_sound
from nonsense import Nonsense, document
from nonsense_server import running_nonsense

from folder_queue import command
from folder_queue.client import ComfyClient
from folder_queue.errors import PromptError
from folder_queue.translate import count_frames

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "video_to_video.json"
NO_VIDEOS = (b"", b"<html>no</html>", b'{"a": 1}', b"\0" * 9999, b"ffconcat version 1.0\nfile a\n")


@pytest.fixture
def translate(tmp_path, monkeypatch):
    """Run the command over one video for each nonsense: the reports of the videos."""
    folder, out = tmp_path / "in", tmp_path / "in-translated"
    monkeypatch.setattr(command, "ComfyClient", partial(ComfyClient, sleep=lambda seconds: None))

    def run(nonsense):
        folder.mkdir()
        for number in range(len(nonsense)):
            (folder / f"{number}.mp4").write_text(str(number))
        with running_nonsense(b"") as server:
            server.play(nonsense)
            arguments = [str(folder), "--workflow", str(WORKFLOW), "--server", server.url]
            assert command.main([*arguments, "--retry", "0"]) == 1
        text = (out / "queue_folder.report.json").read_text(encoding="utf-8")
        return json.loads(text)["videos"]

    run.out = out
    return run


def test_what_is_no_video_is_not_kept(translate, tmp_path):
    whole = make_clip(tmp_path, "h264", frames=9).read_bytes()
    bodies = [*NO_VIDEOS, whole[: len(whole) // 2], make_sound(tmp_path).read_bytes()]
    translate.out.mkdir()
    (translate.out / "0.mp4").write_text("an old result")
    for report in translate([document("view", body) for body in bodies]):
        assert report["status"] == "failed"
        assert "what came back is no video" in report["error"], report
        assert "in the server's output folder: queue_folder/x_00001_.mp4" in report["error"]
    names = {path.name for path in translate.out.iterdir()}
    assert names == {"0.mp4", "queue_folder.report.json"}
    assert (translate.out / "0.mp4").read_text() == "an old result"


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_counted_in_every_format(tmp_path, kind):
    assert count_frames(make_clip(tmp_path, kind, frames=7)) == 7


def test_a_result_names_no_other_file(tmp_path):
    make_clip(tmp_path, "h264", frames=3, name="secret")
    for text in ("ffconcat version 1.0\nfile secret.mp4\n", "#EXTM3U\n#EXTINF:1,\nsecret.mp4\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(PromptError, match="no video"):
            count_frames(tmp_path / "list.mp4")


ENDINGS = ("", ".", ".json", "/../x", ".mp4\0", ".m p4", ".mp4\n", "." + "y" * 300)


def named(name):
    """Let the record of a prompt call its file `name`."""

    async def answer(request, known):
        (record,) = known.values()
        record["outputs"]["16"]["images"][0]["filename"] = name
        return await document("history", json.dumps(known)).answer(request, known)

    return Nonsense("history", name, answer)


def test_no_result_takes_another_ending_than_a_videos(translate):
    for report in translate([named(f"x{ending}") for ending in ENDINGS]):
        assert "no video's ending" in report["error"], report
    assert {path.name for path in translate.out.iterdir()} == {"queue_folder.report.json"}
