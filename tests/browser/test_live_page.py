"""The live page, the node Live Stream and all between them, on a real ComfyUI server.

The camera's frames carry their number. The model returns its input, in squares of 8x8 pixels, so
the numbers must come back.
"""

import json
from pathlib import Path

import pytest
from live_browser import HAS_H264, WATCH, Live, launch
from live_runs import bench_server, identity_graph, queued
from numbered_frames import write_astronaut
from video_graphs import CHECKPOINT, node

ROOT = Path(__file__).resolve().parents[2]
# The cells of a frame's number are two squares wide.
SIDE = 96

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("live page")]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with bench_server(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def open_page(camera_browser, server):
    """Opens pages, which must raise no error, and must ask nobody but the server for anything."""
    opened = []

    def open_one(stream, **options):
        live = Live(camera_browser, f"{server.url}/live2diff/live?stream={stream}", **options)
        live.page.evaluate(WATCH)
        opened.append(live)
        return live

    yield open_one
    for live in opened:
        assert live.errors == []
        assert all(each.startswith((server.url, "blob:")) for each in live.addresses)
        live.context.close()


def running(server, stream):
    """Run the node for a `with` block, at the end of which it must have been stopped."""
    return queued(server, identity_graph(stream=stream, width=SIDE, height=SIDE))


def numbers_agree(shown):
    sequences = [sequence for sequence, *_ in shown]
    assert sequences == sorted(set(sequences))
    assert [number for _, number, _, _ in shown] == [sent for _, _, sent, _ in shown]


def test_numbers_come_back_and_every_frame_is_accounted_for(server, open_page):
    live = open_page("numbers")
    live.see("#result-pane", "No stream yet")
    with running(server, "numbers"):
        live.see("#state", "Ready")
        live.start()
        numbers_agree(live.shown(40))
        live.page.evaluate("session.wanted = false")
        live.until("session.sender.sent === session.receiver.shown + session.status.dropped")
        assert live.page.evaluate("session.sender.sent") >= 40
        live.page.click("#stop")
        live.see("#state", "Stopped")
    # The same graph once more, by the page alone.
    live.page.click("#start")
    live.see("#start", "Pause")
    before = len(live.page.evaluate("shown"))
    numbers_agree(live.shown(before + 5))
    live.page.click("#stop")
    live.see("#state", "Stopped")


def test_numbers_come_back_as_h264(server, open_page):
    live = open_page("h264")
    if not live.page.evaluate(HAS_H264):
        pytest.skip("this Chromium has no H.264 encoder (Debian's and Google's have one)")
    with running(server, "h264"):
        live.see("#state", "Ready")
        live.page.select_option("#codec", "h264")
        live.until("session.codec === 'h264'")
        live.start()
        numbers_agree(live.shown(40))
        live.page.click("#stop")
        live.see("#state", "Stopped")


def test_pause_settings_and_a_hard_cut(server, open_page):
    live = open_page("settings")
    with running(server, "settings"):
        live.see("#prompt-remedy", "Connect CLIP")
        live.start()
        live.shown(5)
        live.page.fill("#seed", "12345")
        live.page.click("#apply-restart")
        live.see("#last-change", "the memory starts over")
        live.page.fill("#threshold", "0.99")
        live.see("#last-change", "similar frames from frame")
        live.page.click("#cut")
        live.see("#last-change", "hard cut")
        live.page.click("#start")
        live.see("#state", "Paused")
        before = len(live.page.evaluate("shown"))
        live.page.click("#start")
        live.see("#start", "Pause")
        live.shown(before + 5)
        live.page.click("#stop")
        live.see("#state", "Stopped")
    assert live.page.input_value("#seed") == "12345"


def test_the_second_page_watches_and_takes_over(server, open_page):
    first, second = open_page("shared"), open_page("shared")
    with running(server, "shared"):
        first.see("#state", "Ready")
        first.start()
        first.shown(3)
        second.see(".notice", "Another page feeds this stream")
        second.shown(5)
        second.page.click("[data-source=camera]")
        second.see("[data-source=camera][aria-pressed=true]")
        second.page.click("#start")
        second.page.wait_for_timeout(500)
        assert second.page.evaluate("[session.role, session.sender.sent]") == ["watch", 0]
        first.page.close()
        second.until("!session.status.sender")
        second.page.click("#start")
        second.until("session.sender.sent > 3")
        second.page.click("#stop")
        second.see("#state", "Stopped")


def test_a_recording(server, open_page):
    live = open_page("recorded")
    with running(server, "recorded"):
        live.see("#state", "Ready")
        live.start()
        live.shown(2)
        live.page.click("#record")
        live.see("#record[aria-pressed=true]", "00:0")
        live.shown(20)
        live.page.click("#record")
        live.see("#record[aria-pressed=false]", "Record")
        live.page.click("#stop")
        live.see("#state", "Stopped")
    (folder,) = (server.base / "output" / "live2diff" / "recordings").glob("recorded-*")
    assert any(folder.iterdir())


def test_a_video_file(server, open_page, tmp_path):
    from devtools.media import sample_frames, write_video

    film = tmp_path / "film.mp4"
    write_video(film, sample_frames(48, 128), fps=24)
    live = open_page("film")
    with running(server, "film"):
        live.see("#state", "Ready")
        live.page.set_input_files("#file", film)
        live.see("#source-name", "film.mp4")
        live.page.click("#start")
        live.shown(5)
        live.page.click("#stop")
        live.see("#state", "Stopped")


def test_the_server_is_started_again(server, open_page):
    live = open_page("again")
    with running(server, "again"):
        live.see("#state", "Ready")
        live.start()
        live.shown(3)
        server.kill()
        live.see(".notice.urgent", "The server is gone")
    server.start()
    live.until("session.connection.state === 'open'")
    live.see("#state", "Waiting for ComfyUI")
    before = len(live.page.evaluate("shown"))
    with running(server, "again"):
        numbers_agree(live.shown(before + 5))
        live.page.click("#stop")
        live.see("#state", "Stopped")


def test_the_bundled_workflow_warms_up_and_takes_a_new_prompt(server, open_page):
    graph = json.loads((ROOT / "workflows" / "api" / "live.json").read_text(encoding="utf-8"))
    (stream,) = (each for each in graph.values() if each["class_type"] == "Live2DiffLiveStream")
    stream["inputs"].update(stream="painted", width=64, height=64)
    live = open_page("painted")
    with queued(server, graph):
        live.see("#state", "Ready")
        live.start()
        live.see("#warmup", "Warming up")
        live.until("session.receiver.shown >= 3")
        live.page.click("text=Ink")
        live.see("#last-change", "prompt from frame")
        live.until("session.receiver.shown >= 6")
        live.page.click("#stop")
        live.see("#state", "Stopped")


@pytest.mark.thorough
def test_pictures_of_the_page(playwright, server, tmp_path):
    film = write_astronaut(tmp_path / "film.mjpeg")
    browser = launch(playwright, f"--use-file-for-fake-video-capture={film}")
    desk = {"width": 1440, "height": 900}
    live = Live(browser, f"{server.url}/live2diff/live?stream=live", viewport=desk)
    live.see("#result-pane", "No stream yet")
    pictures = [live.picture("live_idle", tmp_path)]
    graph = identity_graph(stream="live", width=512, height=512, clip=["checkpoint", 1])
    graph["checkpoint"] = node("CheckpointLoaderSimple", ckpt_name=CHECKPOINT)
    with queued(server, graph):
        live.see("#state", "Ready")
        live.page.evaluate(WATCH)
        live.start()
        live.page.click(".chip >> text=Watercolor")
        live.see("#last-change", "prompt from frame")
        live.shown(40)
        pictures.append(live.picture("live", tmp_path))
        live.page.set_viewport_size({"width": 390, "height": 844})
        live.page.check("#views input[value=over]", force=True)
        live.shown(50)
        pictures.append(live.picture("live_phone", tmp_path))
        live.page.click("#stop")
        live.see("#state", "Stopped")
    assert live.errors == []
    browser.close()
    assert all(20_000 < path.stat().st_size < 400_000 for path in pictures)
