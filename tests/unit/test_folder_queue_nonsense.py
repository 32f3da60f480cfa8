"""The command against servers that answer nonsense: one sentence for the video, then the next one.

Each run has many videos, and the server says something else that is wrong for each of them.
"""

import asyncio
import json
from functools import partial
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from clips import make_clip
from nonsense import (
    DOCUMENTS,
    NO_TEXT,
    NOT_JSON,
    VALUES,
    Nonsense,
    closes,
    document,
    mutants,
    silent,
    status,
)
from nonsense_server import NonsenseServer, running_nonsense

from folder_queue import client as client_module
from folder_queue import command
from folder_queue import connection as connection_module
from folder_queue import transfer as transfer_module
from folder_queue.client import ComfyClient

WORKFLOW = Path(__file__).resolve().parents[2] / "workflows" / "video_to_video.json"
# What a part of an answer becomes.
PARTS = (None, True, -1, 1e300, "", "text", "\ud800", [], {"a": [1]})


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    video = make_clip(tmp_path_factory.mktemp("result"), frames=3)
    with running_nonsense(video.read_bytes()) as server:
        yield server


@pytest.fixture
def translate(server, tmp_path, monkeypatch, capsys):
    """Run the command over one video for each nonsense and one more: (exit code, reports)."""
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 2.0)
    pauses = []
    quick = partial(ComfyClient, sleep=pauses.append)
    monkeypatch.setattr(command, "ComfyClient", quick)

    def run(nonsense, *more, count=None):
        folder = tmp_path / "in"
        folder.mkdir()
        for number in range(count or len(nonsense) + 1):
            (folder / f"{number}.mp4").write_text(str(number))
        server.play(nonsense)
        pauses.clear()
        arguments = [str(folder), "--workflow", str(WORKFLOW), "--server", server.url]
        code = command.main([*arguments, "--retry", "0", *more])
        run.said = capsys.readouterr().out
        run.pauses = list(pauses)
        report = tmp_path / "in-translated" / "queue_folder.report.json"
        return code, json.loads(report.read_text(encoding="utf-8"))["videos"]

    run.out = tmp_path / "in-translated"
    return run


@pytest.fixture
def impatient(monkeypatch):
    """Wait for no answer longer than a moment."""
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(transfer_module, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(connection_module, "DOCUMENT", aiohttp.ClientTimeout(0.5))


def check(translate, nonsense, may_succeed=False):
    """Assert that each nonsense costs its video, that a sentence says why, and no other video."""
    code, videos = translate(nonsense)
    *wrong, last = videos
    assert last["status"] == "done", last
    for each, video in zip(nonsense, wrong, strict=True):
        if may_succeed and video["status"] == "done":
            continue
        assert video["status"] == "failed", (each.name, video)
        assert 10 < len(video["error"]) < 700 and "Traceback" not in video["error"], video
    results = {path.name for path in translate.out.iterdir() if path.suffix == ".mp4"}
    assert results == {video["result"] for video in videos if video["status"] == "done"}
    assert not list(translate.out.glob(".*.part"))
    assert code == (1 if any(video["status"] == "failed" for video in videos) else 0)
    return wrong


@pytest.mark.parametrize("endpoint", DOCUMENTS)
def test_an_answer_that_is_another_value(translate, endpoint):
    # A history without the prompt is no nonsense, but a record that is missing.
    check(translate, [document(endpoint, text) for text in [*VALUES, *NOT_JSON]])


@pytest.mark.parametrize("endpoint", ["greeting", "message"])
def test_a_message_that_is_another_value(translate, endpoint):
    texts = [text for text in [*VALUES, *NOT_JSON] if text != NO_TEXT]
    check(translate, [document(endpoint, text) for text in texts])


def test_a_message_that_is_no_text(translate):
    # aiohttp closes the websocket: a lost connection. The prompt has ended by the time of the next.
    greeting, message = check(
        translate, [document(each, NO_TEXT) for each in ("greeting", "message")], may_succeed=True
    )
    assert "given up after 5" in greeting["error"] and message["status"] == "done"


@pytest.mark.parametrize("endpoint", DOCUMENTS)
def test_an_answer_of_which_a_part_is_another_value(translate, endpoint):
    # Many parts are of no account: then the video is translated.
    known = {
        "upload": {"name": "x", "subfolder": "s", "type": "input"},
        "queue": {"queue_running": [[1, "other", {}]], "queue_pending": [[2, "next", {}]]},
        "prompt": {"prompt_id": "x", "number": 1, "node_errors": {}},
        "history": {"x": NonsenseServer(b"").record("x")},
    }[endpoint]
    check(translate, list(mutants(endpoint, known, PARTS)), may_succeed=True)


def test_messages_of_which_a_part_is_another_value(translate):
    message = {"type": "", "data": {"node": "", "display_node": "", "prompt_id": ""}}
    nonsense = [*mutants("message", message, PARTS), *mutants("greeting", message, PARTS)]
    check(translate, nonsense, may_succeed=True)


@pytest.mark.parametrize("part, value", [("outputs", []), ("status", "x"), ("status", None)])
def test_the_reason_quotes_the_answer(translate, part, value):
    record = {**NonsenseServer(b"").record("x"), part: value}
    (nonsense,) = [
        each
        for each in mutants("history", {"x": record}, (value,))
        if each.name == f"(0, {list(record).index(part)}) = {value!r}"
    ]
    (video,) = check(translate, [nonsense])
    assert f"the server answered /history with {value!r} instead of an object" in video["error"]


ADDRESSES = ("head", "upload", "ws", "queue", "prompt", "history", "view", "cancel")
# Without an answer to these a video is translated all the same.
DISPENSABLE = ("head", "cancel")


@pytest.mark.parametrize("endpoint", ADDRESSES)
def test_a_status_that_is_an_error(translate, endpoint):
    codes = (308, 400, 401, 404, 413, 500)
    nonsense = [status(endpoint, code) for code in codes]
    for code, video in zip(codes, check(translate, nonsense, endpoint in DISPENSABLE), strict=True):
        # The truth, and at once: no server is lost that answers.
        too_large = (endpoint, code) == ("upload", 413) and "--max-upload-size" in video["error"]
        assert video["status"] == "done" or f"with {code}" in video["error"] or too_large, video
    assert not translate.pauses


BROKEN = (b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"\0" * 99)


@pytest.mark.parametrize("endpoint", ADDRESSES)
def test_a_connection_that_always_breaks(translate, endpoint):
    # A prompt whose answer was lost was queued nevertheless, and is taken up.
    dispensable = endpoint in (*DISPENSABLE, "prompt")
    first, *others = check(translate, [closes(endpoint, sent) for sent in BROKEN], dispensable)
    if not dispensable:
        assert "given up after 5 lost connections" in first["error"]
        # Each try comes later than the one before.
        assert translate.pauses[:4] == [1.0, 2.0, 4.0, 8.0]
        # What is no HTTP is said to be none, unless the request broke before the answer came.
        for video in others:
            assert "with " in video["error"] or "given up after 5" in video["error"], video


@pytest.mark.parametrize("endpoint", ["ws", "greeting", "message"])
def test_a_websocket_that_closes(translate, endpoint):
    (video,) = check(translate, [closes(endpoint)], may_succeed=endpoint == "message")
    assert video["status"] == "done" or "given up after 5" in video["error"]


@pytest.mark.parametrize("endpoint", ["queue", "ws"])
def test_a_server_that_never_answers(translate, impatient, endpoint):
    (video,) = check(translate, [silent(endpoint)])
    assert "given up after 2 lost connections: no answer" in video["error"]


@pytest.mark.parametrize("endpoint", ["queue", "history", "upload", "prompt"])
@pytest.mark.parametrize("pause, words", [(0, "at most 100000 bytes"), (0.1, "given up after 2")])
def test_an_answer_without_end(translate, impatient, monkeypatch, endpoint, pause, words):
    """At once more than any document, or a few bytes now and then for ever."""
    monkeypatch.setattr(connection_module, "MOST_BYTES", 100_000)

    async def answer(request, _):
        endless = web.StreamResponse()
        await endless.prepare(request)
        while True:
            await endless.write(b" " * (10 if pause else 10_000))
            await asyncio.sleep(pause)

    # A prompt that is slow to be answered was queued nevertheless, and is taken up.
    slow_prompt = endpoint == "prompt" and pause > 0
    (video,) = check(translate, [Nonsense(endpoint, "endless", answer)], slow_prompt)
    assert slow_prompt or words in video["error"]


@pytest.mark.parametrize("text", [*VALUES, *NOT_JSON], ids=lambda text: ascii(text[:20]))
def test_what_is_no_comfyui_is_refused_in_one_line(server, tmp_path, capsys, text):
    (tmp_path / "a.mp4").write_text("a")
    server.play([], document("system_stats", text))
    arguments = [str(tmp_path), "--workflow", str(WORKFLOW), "--server", server.url]
    assert command.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: no ComfyUI answers at") and said.count("\n") == 1
    assert "the server answered /system_stats with" in said


def test_a_server_that_says_why_it_does_not_come_back(translate, monkeypatch):
    monkeypatch.setattr(ComfyClient, "why_down", _down_after(ComfyClient.why_down, 1))
    code, videos = translate([closes("upload")], "--wait", "0")
    assert code == 1 and [video["status"] for video in videos] == ["failed", "not run"]
    assert "did not come back within 0 s: played" in videos[0]["error"]


def _down_after(why_down, count):
    answers = iter(range(count))
    return lambda self: why_down(self) if next(answers, None) is not None else "played"


def flood(endpoint):
    """Tell the websocket without end of another prompt, as a pack that shows the load does."""

    async def answer(socket, truth):
        await socket.send_json(truth)
        while not socket.closed:
            await socket.send_json({"type": "progress", "data": {"prompt_id": "other"}})
            await asyncio.sleep(0.01)

    return Nonsense(endpoint, "flood", answer)


def test_a_websocket_that_is_never_silent(translate, impatient):
    # The prompt has ended, its last message was lost; or the prompt was never queued.
    greeting, message = check(translate, [flood("greeting"), flood("message")], may_succeed=True)
    assert greeting["status"] == "failed" or greeting["frames"] == 3
    assert message["status"] == "failed" or message["frames"] == 3


def test_the_video_alone_is_refused(translate):
    """An input that only this video makes wrong costs the others nothing."""
    errors = {"7": {"errors": [{"message": "Invalid video file", "details": "x"}]}}
    said = json.dumps({"error": {"message": "no"}, "node_errors": errors})
    (video,) = check(translate, [document("prompt", said, 400)])
    assert "node 7 (LoadVideo): Invalid video file x" in video["error"]


def test_a_prompt_that_is_taken_and_not_known(translate):
    """At once, and not after a minute of silence, five times."""
    forgetful = Nonsense("history", "forgets", _forgets)
    (video,) = check(translate, [forgetful])
    assert "neither its queue nor its history has it" in video["error"]
    assert not translate.pauses


async def _forgets(*_):
    return web.json_response({})
