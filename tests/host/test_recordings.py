"""What was seen live, rendered again."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from host_stream import core, patched
from live_script import live_inputs, live_pixels, run_live
from safetensors.torch import load_file

WARMUP, WINDOW = 2, 4
SUPPORT = Path(__file__).resolve().parents[1] / "support"
pytestmark = pytest.mark.usefixtures("streams")
# Everything that can be changed, some of it at one frame, and a prompt amid the blend of another.
CHANGES = {
    5: [("prompt", {"text": "7", "blend": 6})],
    8: [("prompt", {"text": "8", "blend": 3}), ("cfg", 2.0)],
    13: [("threshold", 0.0)],
    16: [("cut", True), ("threshold", 1.0)],
    20: [("steps", 3), ("denoise", 1.0), ("prompt", {"text": "9", "blend": 4})],
    26: [("seed", "77"), ("negative", {"text": "4", "blend": 0})],
    30: [("cfg", 3.0)],
}


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, WINDOW, WARMUP)


@pytest.fixture
def floats(monkeypatch):
    """What comes out of live streams, before it is rounded."""
    loop, found = core("live.loop"), []
    rounded = loop.to_uint8

    def noted(pictures):
        found.extend(pictures.clone())
        return rounded(pictures)

    monkeypatch.setattr(loop, "to_uint8", noted)
    return found


def recorded(tmp_path, streams, model, vae, changes, count=36):
    """Run live, record from the first frame on, and remove what came out."""
    before = {0: [("record", None)], **changes}
    script = run_live(
        streams, live_inputs(model, vae), live_pixels(count), before, folder=tmp_path / "r"
    )
    (tmp_path / "r" / "output.mkv").unlink()
    return script


def test_a_new_process_renders_what_was_seen(tmp_path, streams, model, vae, floats):
    script = recorded(tmp_path, streams, model, vae, CHANGES)
    seen = torch.stack(floats)
    assert len(seen) == 36 == len(script.follower.finished)
    command = [sys.executable, str(SUPPORT / "rendered_again.py"), str(tmp_path / "r")]
    subprocess.run([*command, str(tmp_path / "again"), str(WINDOW), str(WARMUP)], check=True)
    again = load_file(tmp_path / "again")["pictures"]
    assert again.shape == seen.shape and (again - seen).abs().max() <= 1e-5
