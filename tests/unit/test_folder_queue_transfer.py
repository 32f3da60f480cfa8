"""HTTP as queue_folder does it, against a small server of its own."""

import json
import threading
import tracemalloc
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from folder_queue.answers import SavedFile
from folder_queue.connection import Connection
from folder_queue.errors import (
    AnswerError,
    ConnectionLostError,
    ServerGoneError,
    UploadRefusedError,
)
from folder_queue.transfer import download, on_server

UPLOADED = json.dumps(
    {"name": f"{'c' * 32}.mp4", "subfolder": "queue_folder", "type": "input"}
).encode()


class Handler(BaseHTTPRequestHandler):
    """Plays the few addresses of ComfyUI that are used; `answers` overrides by path."""

    def answer(self, status, body=b"", length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_one(self):
        path = self.path.split("?")[0]
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.command, path, data, self.headers.get("Content-Type")))
        answers = self.server.answers.get((self.command, path)) or [(404,)]
        self.answer(*(answers.pop(0) if len(answers) > 1 else answers[0]))

    do_GET = do_POST = do_HEAD = handle_one  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    played = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    played.answers, played.seen = {}, []
    thread = threading.Thread(target=played.serve_forever, daemon=True)
    thread.start()
    yield played
    played.shutdown()
    played.server_close()


@pytest.fixture
def connection(server):
    with Connection(f"http://127.0.0.1:{server.server_port}/") as connection:
        yield connection


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "My clip (1).MP4"
    path.write_bytes(b"\r\n--not a boundary\x00" * 100)
    return path


def fields(data, content_type):
    whole = BytesParser().parsebytes(b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + data)
    return {
        part.get_param("name", header="content-disposition"): part for part in whole.get_payload()
    }


def test_a_video_is_uploaded_whole_under_the_name_of_its_content(server, connection, video):
    server.answers[("POST", "/upload/image")] = [(200, UPLOADED)]
    with on_server(connection, video, "c" * 64, None) as there:
        assert there() == f"queue_folder/{'c' * 32}.mp4"
    _, _, data, content_type = server.seen[-1]
    parts = fields(data, content_type)
    assert parts["image"].get_payload(decode=True) == video.read_bytes()
    assert parts["image"].get_filename() == f"{'c' * 32}.mp4"
    assert parts["subfolder"].get_payload().strip() == "queue_folder"
    assert parts["type"].get_payload().strip() == "input"


def test_what_is_there_is_not_sent_again(server, connection, video):
    server.answers[("HEAD", "/view")] = [(200, b"", video.stat().st_size)]
    with on_server(connection, video, "c" * 64, None) as there:
        there()
    assert [seen[0] for seen in server.seen] == ["HEAD"]


def test_a_video_too_large_for_the_server(server, connection, video):
    server.answers[("POST", "/upload/image")] = [(413,)]
    with pytest.raises(UploadRefusedError, match="--max-upload-size .*--input-dir"):
        with on_server(connection, video, "c" * 64, None) as there:
            there()


def test_an_input_folder_within_reach(connection, video, tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    with on_server(connection, video, "c" * 64, folder) as there:
        assert (folder / there()).read_bytes() == video.read_bytes()
    assert not list((folder / "queue_folder").iterdir()) and video.exists()
    # What lies in the input folder is used where it is, and stays.
    with on_server(connection, video, "c" * 64, tmp_path) as there:
        assert there() == video.name
    assert video.exists()


ENTRY = SavedFile("x_00001_.mkv", "s", "output")


def test_a_result_takes_the_servers_ending(server, connection, tmp_path):
    server.answers[("GET", "/view")] = [(200, b"result")]
    path = download(connection, ENTRY, tmp_path / "sub" / "v1.2")
    assert path.name == "v1.2.mkv" and path.read_bytes() == b"result"


def test_a_broken_download_leaves_nothing(server, connection, tmp_path):
    server.answers[("GET", "/view")] = [(200, b"resu", 6)]
    (tmp_path / "a.mkv").write_text("old")
    with pytest.raises(ConnectionLostError):
        download(connection, ENTRY, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]
    assert (tmp_path / "a.mkv").read_text() == "old"
    server.answers[("GET", "/view")] = [(404,)]
    with pytest.raises(AnswerError, match="404"):
        download(connection, ENTRY, tmp_path / "a")


def test_a_server_that_comes_back(server, connection):
    # Behind a proxy, a server that starts looks like this; another site on the port, like a page.
    server.answers[("GET", "/system_stats")] = [(503,), (200, b"<html>"), (200, b'{"system": {}}')]
    connection.wait_until_up(30)
    assert len(server.seen) == 3
    server.answers[("GET", "/queue")] = [(502,), (500,)]
    with pytest.raises(ConnectionLostError, match="is away"):
        connection.get("/queue")
    with pytest.raises(AnswerError, match="500"):
        connection.get("/queue")


def test_a_server_that_does_not(server, connection):
    with pytest.raises(ServerGoneError, match="did not come back within 0 s"):
        connection.wait_until_up(0.2)
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionLostError, match="no answer from"):
        connection.get("/queue")


LARGE = 96 * 2**20


class LargeHandler(Handler):
    """Takes and sends LARGE bytes, a piece at a time."""

    def do_POST(self):  # noqa: N802
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 2**16)))
        self.server.seen.append(int(self.headers["Content-Length"]))
        self.answer(200, UPLOADED)

    def do_GET(self):  # noqa: N802
        self.answer(200, b"", LARGE)
        for _ in range(LARGE // 2**16):
            self.wfile.write(bytes(2**16))


def test_no_file_is_held_in_memory(server, connection, video, tmp_path):
    server.RequestHandlerClass = LargeHandler
    with open(video, "wb") as file:
        file.truncate(LARGE)
    tracemalloc.start()
    try:
        with on_server(connection, video, "c" * 64, None) as there:
            there()
        path = download(connection, ENTRY, tmp_path / "a")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert server.seen[-1] > LARGE and path.stat().st_size == LARGE
    assert peak < LARGE / 8
