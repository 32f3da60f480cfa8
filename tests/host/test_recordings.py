"""What was seen live, rendered again."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from host_stream import core, patched
from live_script import encode, live_inputs, live_pixels, run_live
from rendered_again import rendered
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


def test_the_same_process_renders_it_from_amid_a_stream(tmp_path, streams, model, vae, floats):
    """Recorded from a frame on at which a prompt blends in, with frames inside."""
    before = {
        4: [("prompt", {"text": "7", "blend": 6})],
        8: [("record", None)],
        11: [("prompt", {"text": "8", "blend": 2})],
        15: [("cfg", 2.0)],
    }
    folder = tmp_path / "r"
    run_live(streams, live_inputs(model, vae), live_pixels(18), before, folder=folder)
    assert (folder / "state.safetensors").is_file()
    again = rendered(folder, live_inputs(model, vae))
    seen = torch.stack(floats)[8:]
    assert again.shape == seen.shape and (again - seen).abs().max() <= 1e-5


def test_it_stops_anywhere_and_resumes(tmp_path, streams, model, vae):
    """The state that Stream Video saves, at every frame of the recording."""
    recorded(tmp_path, streams, model, vae, CHANGES)
    inputs, folder = live_inputs(model, vae), tmp_path / "r"
    whole = rendered(folder, inputs)
    for stop in (6, 17, 21):
        again = rendered(folder, inputs, stop=stop)
        assert again.shape == whole.shape and (again - whole).abs().max() <= 1e-5, stop


def test_the_nodes_own_settings_keep_prompts_and_cuts(tmp_path, streams, model, vae):
    recorded(tmp_path, streams, model, vae, CHANGES)
    other = live_inputs(model, vae, seed=11)
    own = rendered(tmp_path / "r", other, as_recorded=False)
    assert len(own) == 36
    # The seed that was recorded, and all its changes, replace the node's.
    assert torch.equal(
        rendered(tmp_path / "r", other), rendered(tmp_path / "r", live_inputs(model, vae))
    )


def test_larger_with_other_prompts_at_the_same_moments(tmp_path, streams, model, vae):
    recorded(tmp_path, streams, model, vae, CHANGES)
    loaded = core("live.loaded_recording").LoadedRecording.read(tmp_path / "r", True)
    other = loaded.with_prompts(["55", "", "56"], encode)
    texts = [c["value"]["text"] for c in other.facts["changes"] if c["control"] == "prompt"]
    assert texts == ["55", "8", "56"] and other.identity() != loaded.identity()
    with pytest.raises(ValueError, match="changed 3 times"):
        loaded.with_prompts(["1"] * 4, encode)
    large = rendered(tmp_path / "r", live_inputs(model, vae), size=(160, 128), recording=other)
    assert large.shape == (36, 128, 160, 3)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("recording.json", b""),
        ("recording.json", b"[]"),
        ("recording.json", b'{"version": 2}'),
        ("prompts.safetensors", b"x" * 40),
        ("prompts.safetensors", None),
    ],
)
def test_a_damaged_recording_is_refused_by_name(tmp_path, streams, model, vae, name, damage):
    recorded(tmp_path, streams, model, vae, {2: [("prompt", {"text": "7", "blend": 0})]}, 5)
    path = tmp_path / "r" / name
    path.unlink() if damage is None else path.write_bytes(damage)
    reader = core("live.loaded_recording")
    with pytest.raises(reader.RecordingError, match="r is no recording"):
        reader.LoadedRecording.read(tmp_path / "r", True)


def test_a_recording_that_fails_ends_itself_and_not_the_stream(
    tmp_path, streams, model, vae, monkeypatch
):
    def full(self, *_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(core("live.recording").PictureFile, "add", full)
    script = recorded_only(tmp_path, streams, model, vae)
    assert len(script.follower.finished) == 20
    assert any(message.get("code") == "output" for message in script.follower.told)


def recorded_only(tmp_path, streams, model, vae):
    before = {0: [("record", None)]}
    return run_live(
        streams, live_inputs(model, vae), live_pixels(20), before, folder=tmp_path / "r"
    )
