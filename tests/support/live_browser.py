"""The live page in headless Chromium, with a camera whose frames carry their number."""

import io
import os
import time
from pathlib import Path

from comfy_page import FLAGS
from numbered_frames import READ_NUMBER
from PIL import Image

from devtools.browser import find_browser

# The flag that lets every page use the camera.
ALLOW = "--use-fake-ui-for-media-stream"
HAS_H264 = "import('/live2diff/live/page/h264.mjs').then(m => m.H264Codec.supported())"
# For every result: its sequence, the number in it, the number that was sent under it, its latency.
WATCH = f"""async () => {{
  const {{ session }} = await import("/live2diff/live/page/main.mjs");
  const read = {READ_NUMBER};
  const sent = {{}}, shown = [];
  Object.assign(window, {{ session, shown }});
  const deliver = session.sender.deliver;
  session.sender.deliver = message => {{
    const going = session.sender.encoded;
    sent[session.sender.sent + 1] = going;
    return deliver(message);
  }};
  for (const codec of Object.values(session.codecs)) {{
    const encode = codec.encode.bind(codec);
    codec.encode = canvas => {{
      session.sender.encoded = read(canvas);
      return encode(canvas);
    }};
  }}
  session.receiver.addEventListener("shown", ({{ detail }}) => shown.push(
    [detail.sequence, read(session.receiver.canvas), sent[detail.sequence], detail.ms]));
}}"""


def launch(playwright, *more, without=()):
    """Start Chromium with the flags of all tests, but for those in `without`, and `more`."""
    flags = [flag for flag in FLAGS if flag not in without]
    return playwright.chromium.launch(executable_path=find_browser(), args=[*flags, *more])


class Live:
    """The page, open at a server."""

    def __init__(self, browser, url, **options):
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.errors, self.addresses = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.addresses.append(request.url))
        self.page.goto(url)
        self.see("#controls")

    def see(self, selector, text=""):
        """Wait until an element that contains `text` is visible, and return it."""
        found = self.page.locator(selector).filter(has_text=text).first
        found.wait_for(state="visible", timeout=30_000)
        return found

    def until(self, expression, seconds=120):
        """Wait until it is true in the page, whose policy does not let the page itself wait."""
        end = time.monotonic() + seconds
        while not self.page.evaluate(expression):
            assert time.monotonic() < end, expression
            self.page.wait_for_timeout(50)

    def start(self):
        self.page.click("[data-source=camera]")
        self.see("[data-source=camera][aria-pressed=true]")
        self.page.click("#start")
        self.see("#start", "Pause")

    def shown(self, count):
        """Wait for so many results: [sequence, number, number sent, latency]."""
        self.until(f"window.shown.length >= {count}")
        return self.page.evaluate("window.shown")

    def picture(self, name, tmp_path):
        """Save what is seen as a small PNG; the camera's name there is no path of this machine."""
        folder = Path(os.environ.get("LIVE2DIFF_SCREENSHOTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        self.page.evaluate(
            "for (const o of document.querySelectorAll('#cameras option')) o.text = 'Camera'"
        )
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        path = folder / f"{name}.png"
        image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
        return path
