"""Measures the live page itself, in headless Chromium with its test camera: glass to glass.

From the callback for a frame of the camera to the drawn result, on the page's own clock.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

RATE = 25
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    f"--use-fake-device-for-media-stream=fps={RATE}",
    "--use-fake-ui-for-media-stream",
)
SESSION = "import('/live2diff/live/page/main.mjs').then(({session}) => %s)"
STATE = SESSION % "session.status?.state"
SENT = SESSION % "session.sender.sent"
STOP = SESSION % "(session.wanted = false)"
COUNTED = SESSION % "session.sender.sent - session.receiver.shown - session.status.dropped"
FIGURES = (
    SESSION
    % """({
  sent: session.sender.sent,
  shown: session.receiver.shown,
  dropped: session.status.dropped,
  skipped_in_page: session.sender.skipped,
  latency_ms_median: session.receiver.latency.at(0.5),
  latency_ms_p95: session.receiver.latency.at(0.95),
})"""
)


def measure_page(browser: Path, url: str, stream: str, frames: int) -> dict[str, Any]:
    """Feed a running stream from the page until so many frames were sent; stop it at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=list(FLAGS))
        page = chromium.new_page()
        page.goto(f"{url}/live2diff/live?stream={stream}")
        _until(page, f"{STATE}.then(state => state === 'running')")
        page.click("[data-source=camera]")
        page.wait_for_selector("[data-source=camera][aria-pressed=true]")
        page.click("#start")
        _until(page, f"{SENT}.then(sent => sent >= {frames})")
        page.evaluate(STOP)
        _until(page, f"{COUNTED}.then(missing => missing === 0)")
        figures = page.evaluate(FIGURES)
        page.click("#stop")
        _until(page, f"{STATE}.then(state => state === 'stopped')")
        chromium.close()
    return dict(figures)


def _until(page: Any, condition: str, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        if time.monotonic() > end:
            raise TimeoutError(f"the live page waited in vain: {condition}")
        page.wait_for_timeout(50)
