"""The live page with Chromium's test camera, before a server that only echoes and can be staged."""

import pytest
from echo_server import EchoServer
from live_browser import ALLOW, HAS_H264, WATCH, Live, launch

pytestmark = pytest.mark.browser

# Reached under this name, the page is neither on localhost nor on https.
OTHER_NAME = "live.test"


@pytest.fixture
def server():
    started = EchoServer()
    started.start()
    yield started
    started.close()


@pytest.fixture
def live(camera_browser, server):
    """The page in a browser that allows the camera; it must raise no error."""
    opened = Live(camera_browser, server.url)
    opened.page.evaluate(WATCH)
    opened.see("#state", "Ready")
    yield opened
    assert opened.errors == []
    opened.context.close()


def test_every_number_comes_back_once_and_in_order(live, server):
    live.start()
    shown = live.shown(40)
    sequences = [sequence for sequence, *_ in shown]
    assert sequences == sorted(set(sequences))
    assert [number for _, number, _, _ in shown] == [sent for _, _, sent, _ in shown]
    assert len({number for _, number, _, _ in shown}) > 30
    assert all(0 < ms < 10_000 for *_, ms in shown)
    for figure in ("fps-in", "fps-out", "latency-median", "latency-p95", "dropped"):
        live.until(f"parseFloat(document.getElementById('{figure}').value) >= 0")
    # Each result was acknowledged, with its latency; and nothing came from elsewhere.
    acknowledged = [text for text in server.texts if "shown" in text]
    assert [text["shown"] for text in acknowledged] == list(range(1, len(acknowledged) + 1))
    assert all(text["ms"] > 0 for text in acknowledged)
    assert all(address.startswith(server.url) for address in live.addresses)


def test_h264_where_both_sides_have_it(live, server):
    if not live.page.evaluate(HAS_H264):
        pytest.skip("this Chromium has no H.264 encoder (Debian's and Google's have one)")
    live.page.select_option("#codec", "h264")
    live.until("session.codec === 'h264'")
    live.start()
    before = len(live.shown(40))
    # The key frame of a new connection starts both decoders anew.
    server.stop()
    live.see("#state", "reconnecting")
    server.start()
    live.until("session.connection.state === 'open'")
    shown = live.shown(before + 20)
    sequences = [sequence for sequence, *_ in shown]
    assert sequences == sorted(set(sequences))
    assert [number for _, number, _, _ in shown] == [sent for _, _, sent, _ in shown]
    assert server.said("codecs")[-2:] == [["h264", "jpeg"]] * 2


def test_a_server_without_h264_gets_jpeg(live, server):
    server.codecs = ("jpeg",)
    live.page.evaluate("session.prefer('h264')")
    live.page.wait_for_timeout(1000)
    live.start()
    live.shown(3)
    assert live.page.input_value("#codec") == "jpeg"


def test_without_credits_frames_are_dropped_not_queued(live, server):
    server.gives_back = False
    live.start()
    live.until("session.sender.skipped > 10")
    assert server.arrived == [1, 2] and live.page.evaluate("session.sender.credits") == 0
    captured = live.page.evaluate("performance.now()")
    server.say({"credits": 1})
    live.shown(3)
    # What goes out is the newest picture, not the one that waited first.
    assert live.page.evaluate("performance.now() - shown[2][3]") > captured - 1000
    assert live.page.locator("#dropped").evaluate("output => Number(output.value)") > 10


def test_pause_resume_stop_and_start(live, server):
    live.start()
    live.shown(3)
    live.page.click("#start")
    server.status["state"] = "paused"
    live.see("#start", "Resume")
    live.see("#state", "Paused")
    live.page.wait_for_timeout(300)
    before = len(server.arrived)
    live.page.wait_for_timeout(500)
    assert len(server.arrived) == before
    live.page.click("#start")
    server.status["state"] = "running"
    live.see("#start", "Pause")
    live.until(f"session.sender.sent > {before}")
    live.page.click("#stop")
    server.status["state"] = "stopped"
    live.see("#state", "Stopped")
    live.page.click("#start")
    server.status["state"] = "starting"
    live.see("#state", "Loading models")
    assert server.said("command") == ["pause", "resume", "stop", "start"]
    assert server.said("role") == ["watch", "send", "watch", "send"]


def test_a_prompt_with_presets_and_blend(live, server):
    live.see("#apply-prompt")
    page = live.page
    assert page.input_value("#prompt") == "a first prompt"
    page.fill("#prompt", "a second prompt, with brush strokes")
    page.fill("#blend", "30")
    page.press("#prompt", "Control+Enter")
    live.see("#last-change", "prompt from frame 5 on")
    page.click("text=+ Keep this")
    page.click(".chip >> text=Ink")
    page.click(".chip >> text=a second prompt")
    live.until("document.getElementById('apply-prompt').disabled")
    prompts = [text["value"] for text in server.texts if text.get("set") == "prompt"]
    kept = {"text": "a second prompt, with brush strokes", "blend": 30}
    assert prompts[0] == prompts[2] == kept and prompts[1]["text"].startswith("black ink")
    page.reload()
    live.see(".chip", "a second prompt")
    page.click("[aria-label='Remove the preset a second prompt']")
    assert page.locator(".chip >> text=a second prompt").count() == 0


def test_what_starts_the_memory_over_is_applied_when_asked(live, server):
    page = live.page
    live.until("!document.getElementById('steps').disabled")
    page.fill("#denoise", "0.7")
    page.fill("#steps", "6")
    page.fill("#seed", "123")
    assert server.said("set") == []
    live.see("#restart-group", "warms up again")
    page.click("#apply-restart")
    live.see("#last-change", "the memory starts over")
    page.fill("#cfg", "2.5")
    page.fill("#threshold", "0.95")
    live.until("document.getElementById('apply-restart').disabled")
    page.wait_for_timeout(300)
    changes = [(text["set"], text["value"]) for text in server.texts if "set" in text]
    wanted = {("denoise", 0.7), ("steps", 6), ("seed", "123"), ("cfg", 2.5), ("threshold", 0.95)}
    assert set(changes) == wanted and len(changes) == len(wanted)


def test_a_refused_setting_goes_back_and_says_why(live, server):
    page = live.page
    live.until("!document.getElementById('cfg').disabled")
    page.evaluate("session.connection.send = message => (window.asked = message, true)")
    page.fill("#cfg", "7")
    identity = page.evaluate("asked.id")
    server.say({"error": "cfg is too high", "code": "value", "remedy": "Less.", "id": identity})
    live.see(".notice.urgent", "cfg is too high")
    assert page.input_value("#cfg") == "1"


def test_by_keyboard_alone(live, server):
    page = live.page
    press = page.keyboard.press
    for _ in range(30):
        press("Tab")
        if page.evaluate("document.activeElement.dataset.source") == "camera":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press("Enter")
    live.see("[data-source=camera][aria-pressed=true]")
    page.evaluate("document.activeElement.blur()")
    press("Space")
    live.shown(2)
    for key, seen in (("v", "[data-view=over]"), ("v", "[data-view=result]")):
        press(key)
        live.see(f"#panes{seen}")
    press("m")
    assert page.is_checked("#mirror")
    press("t")
    live.see("#turned", "90°")
    press("c")
    press("r")
    live.until("document.activeElement === document.body")
    press("p")
    page.keyboard.type(" crc")
    press("Control+Enter")
    live.see("#last-change", "prompt from frame 5 on")
    assert page.input_value("#prompt") == "a first prompt crc"
    page.evaluate("document.activeElement.blur()")
    press("?")
    live.see("#help-dialog", "start, pause, go on")
    press("s")
    press("Escape")
    press("s")
    page.wait_for_timeout(300)
    assert server.said("command") == ["record", "stop"]
    assert server.said("set") == ["cut", "prompt"]


def test_the_slider_moves_with_the_arrows(live):
    page = live.page
    page.check("#views input[value=over]", force=True)
    page.focus("#split")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    split = page.locator("#panes").evaluate("panes => panes.style.getPropertyValue('--split')")
    assert split == "55%"


def test_the_server_goes_and_comes_back(live, server):
    live.start()
    before = len(live.shown(5))
    server.stop()
    live.see(".notice.urgent", "The server is gone")
    live.see("#state", "reconnecting")
    server.start()
    live.page.locator(".notice").wait_for(state="hidden")
    shown = live.shown(before + 10)
    sequences = [sequence for sequence, *_ in shown]
    assert sequences == sorted(set(sequences))
    assert [number for _, number, _, _ in shown] == [sent for _, _, sent, _ in shown]


def test_the_second_page_watches(live, server):
    server.status["sender"] = "elsewhere"
    live.page.reload()
    live.see(".notice", "Another page feeds this stream")
    live.see("#state", "watching")
    live.page.click("[data-source=camera]")
    live.see("[data-source=camera][aria-pressed=true]")
    live.page.click("#start")
    live.page.wait_for_timeout(500)
    assert server.arrived == []


def test_warm_up_shows_the_input_and_how_far_it_is(live, server, tmp_path):
    server.status["warmup"] = {"done": 3, "frames": 8}
    live.start()
    live.see("#warmup", "Warming up, 3 of 8 frames")
    live.shown(3)
    assert live.page.evaluate("[session.receiver.shown, session.receiver.latency.at(0.5)]") == [
        0,
        None,
    ]
    server.status["warmup"] = None
    live.page.locator("#warmup").wait_for(state="hidden")
    live.until("session.receiver.shown > 0")


def test_a_prompt_without_clip_says_what_to_do(camera_browser, server):
    server.unavailable = dict.fromkeys(("prompt", "negative"), "Connect CLIP to Live Stream.")
    live = Live(camera_browser, server.url)
    live.see("#prompt-remedy", "Connect CLIP")
    assert live.page.is_disabled("#prompt") and not live.page.is_disabled("#cfg")
    live.context.close()


def test_files_and_pictures(live, server, tmp_path):
    from devtools.media import sample_frames

    picture = tmp_path / "picture.png"
    next(sample_frames(1, 96)).save(picture)
    live.page.set_input_files("#picture", picture)
    live.see("#source-name", "picture.png")
    live.page.click("#start")
    live.shown(3)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    live.page.set_input_files("#picture", broken)
    live.see(".notice.urgent", "This picture cannot be read")
    live.page.set_input_files("#file", broken)
    live.see(".notice.urgent", "This file cannot be played")


def test_a_screen(live):
    """Chromium's test screen: a headless browser has none of its own."""
    live.page.click("[data-source=screen]")
    live.see("[data-source=screen][aria-pressed=true]")
    live.page.click("#start")
    live.shown(5)


def test_nothing_is_wider_than_a_phone(camera_browser, server, tmp_path):
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    live = Live(camera_browser, server.url, **phone)
    live.see("#state", "Ready")
    live.start()
    live.see("#panes[data-view=over]")
    assert live.page.evaluate("document.scrollingElement.scrollWidth") <= 360
    wide = "[...document.querySelectorAll('button, input, select, output')].filter(each => "
    wide += "each.getBoundingClientRect().right > 360).map(each => each.id)"
    assert live.page.evaluate(wide) == []
    live.context.close()


def test_everything_has_a_name_for_screen_readers(live):
    nameless = """() => [...document.querySelectorAll("button, input, select, textarea, canvas")]
      .filter(each => !each.hidden)
      .filter(each => !(each.getAttribute("aria-label") || each.textContent.trim()
                        || each.labels?.length))
      .map(each => each.outerHTML)"""
    assert live.page.evaluate(nameless) == []


def test_a_refused_camera(playwright, server, tmp_path):
    browser = launch(playwright, without=(ALLOW,))
    live = Live(browser, server.url, viewport={"width": 1440, "height": 900})
    live.see("#state", "Ready")
    live.page.click("[data-source=camera]")
    live.see(".notice.urgent", "The camera was refused")
    live.picture("live_camera_refused", tmp_path)
    browser.close()


def test_neither_localhost_nor_https(playwright, server):
    browser = launch(playwright, f"--host-resolver-rules=MAP {OTHER_NAME} 127.0.0.1")
    live = Live(browser, server.url.replace("127.0.0.1", OTHER_NAME))
    live.see(".notice.urgent", "only to localhost and https")
    browser.close()
