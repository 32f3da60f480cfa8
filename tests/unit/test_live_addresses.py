"""Network streams that Live Stream reads and writes, over this computer's own network."""

import socket
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import av
import numpy as np
import pytest

from live2diff_core.live.address_source import AddressSource, SourceError, check_source
from live2diff_core.live.channel import LiveChannel
from live2diff_core.live.frames import LiveResult
from live2diff_core.live.outputs import DrivenOutput, check_outputs
from live2diff_core.live.sizing import LiveSize


class NoSettings:
    """Settings of a channel that nobody asks for them."""

    def value(self, control):
        return None


@pytest.fixture
def channel():
    channel = LiveChannel("live")
    channel.begin(NoSettings(), LiveSize("fill", 64, 48), "address", {})
    return channel


def free_port(kind=socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def grey(level):
    return np.full((48, 64, 3), level, np.uint8)


def until(happened, meanwhile=lambda: None, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        meanwhile()
        time.sleep(0.02)


@pytest.mark.parametrize(
    "address",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "concat:a|b",
        "pipe:0",
        "rtsp:",
        "camera:/etc/passwd",
        "camera:",
        "ftp://host/a",
        "",
    ],
)
def test_what_is_no_network_stream_and_no_camera_is_refused(address):
    with pytest.raises(SourceError):
        check_source(address)


@pytest.mark.parametrize("address", ["rtsp://a/b", "http://a:80/c.mp4", "udp://0.0.0.0:5000"])
def test_network_streams_are_taken(address):
    check_source(address)


def test_outputs_are_read_line_by_line_and_files_are_refused():
    text = "\n rtmp://host/app/key \nrecording\n"
    assert check_outputs(text) == ["rtmp://host/app/key", "recording"]
    for wrong in ("/tmp/a.mp4", "file:///tmp/a.mp4", "http://host/a", "tee:a"):
        with pytest.raises(ValueError, match="cannot write"):
            check_outputs(wrong)


@pytest.mark.parametrize(
    ("output", "library"), [("virtual camera", "pyvirtualcam"), ("ndi", "cyndilib")]
)
def test_an_output_whose_library_is_missing_says_what_to_install(output, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=f"pip install {library}"):
        check_outputs(output)


def test_a_device_gets_the_newest_results_and_is_opened_again(channel, monkeypatch):
    """A stand-in for the library, whose camera is taken at first."""
    opened, shown = [], []

    class Camera:
        def __init__(self, width, height, fps):
            opened.append((width, height))
            if len(opened) == 1:
                raise RuntimeError("the camera is taken")

        def send(self, picture):
            shown.append(int(picture.mean()))

        def close(self):
            shown.append("closed")

    monkeypatch.setitem(sys.modules, "pyvirtualcam", SimpleNamespace(Camera=Camera))
    monkeypatch.setattr("live2diff_core.live.outputs._PAUSE_SECONDS", 0.01)
    assert check_outputs("virtual camera") == ["virtual camera"]
    with DrivenOutput("virtual camera", channel) as output:
        until(lambda: len(shown) > 3, lambda: output.show(LiveResult(grey(77), None, 1)))
    assert set(shown[:-1]) == {77} and shown[-1] == "closed"
    assert opened == [(64, 48)] * 2
    assert "the camera is taken" in channel.figures.warnings[0]


def test_what_is_written_to_an_address_is_read_from_it(channel):
    """Both ends, over UDP: results out, frames in."""
    address = f"udp://127.0.0.1:{free_port()}?pkt_size=1316"
    frames = []

    def meanwhile():
        output.show(LiveResult(grey(200), None, 1))
        output.show(LiveResult(grey(10), None, -1))
        if (frame := channel.slot.take()) is not None:
            frames.append(frame)

    with AddressSource(address, channel) as source, DrivenOutput(address, channel) as output:
        until(lambda: len(frames) >= 10, meanwhile)
        assert not source.ended
    # The grey of 10 was a frame of the warm-up, which never leaves.
    assert all(abs(int(frame.picture.mean()) - 200) < 4 for frame in frames[2:])
    sequences = [frame.sequence for frame in frames]
    assert sequences == sorted(set(sequences)) and not channel.figures.warnings


@contextmanager
def served(folder):
    """A folder over HTTP."""
    import functools
    import http.server
    import threading

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def movie(path, frames, rate):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(grey(90), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_file_over_http_is_paced_by_its_own_clock_and_ends(channel, tmp_path):
    movie(tmp_path / "a.mkv", 21, 20)
    frames = []

    def meanwhile():
        if (frame := channel.slot.take()) is not None:
            frames.append(frame)

    with (
        served(tmp_path) as url,
        AddressSource(f"{url}/a.mkv", channel) as source,
    ):
        until(lambda: source.ended, meanwhile)
    meanwhile()
    assert source.count.received == 21 == len(frames) + source.count.dropped
    assert frames[-1].arrived - frames[0].arrived >= 0.9


def test_an_address_that_never_answers_ends_the_stream_with_its_name(channel, monkeypatch):
    monkeypatch.setattr("live2diff_core.live.address_source._FIRST_SECONDS", 0.2)
    address = f"rtmp://127.0.0.1:{free_port(socket.SOCK_STREAM)}/live"

    def over():
        try:
            return source.ended
        except SourceError as error:
            assert address in str(error)
            return True

    with AddressSource(address, channel) as source:
        until(over)


def test_a_playlist_leads_to_no_file_of_this_computer(channel, tmp_path, monkeypatch):
    monkeypatch.setattr("live2diff_core.live.address_source._FIRST_SECONDS", 0.2)
    movie(tmp_path / "secret.ts", 10, 20)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.5,\n{tmp_path / 'secret.ts'}\n"
    (tmp_path / "a.m3u8").write_text(playlist + "#EXT-X-ENDLIST\n", encoding="utf-8")

    def over():
        try:
            return source.ended
        except SourceError:
            return True

    with served(tmp_path) as url, AddressSource(f"{url}/a.m3u8", channel) as source:
        until(over)
    assert source.count.received == 0
