"""How Stream Video finds the folder of a stopped run among those of others."""

import json

import pytest
import torch
from host_stream import core
from safetensors.torch import save_file

IDENTITY = {"seed": 3, "size": "64x64"}


def save(root, name, metadata):
    """Write the state file of a partial folder."""
    folder = root / name
    folder.mkdir(parents=True)
    state = {"format": core("run.state_file").FORMAT, **metadata}
    save_file({"x": torch.zeros(1)}, str(folder / core("run.partial_folder").OLD_STATE), state)
    return folder


def settings(value):
    return {"settings": json.dumps(value)}


def found(root, identity=IDENTITY):
    return core("run.partial_folders").folder_of(root, identity).path


@pytest.fixture
def strangers(tmp_path):
    """Folders that come first by name, and that no version of ours, or an older one, wrote."""
    save(tmp_path, "0 no identity", {})
    save(tmp_path, "1 not JSON", {"settings": "{"})
    save(tmp_path, "2 a list", settings([1, 2]))
    save(tmp_path, "3 half of an old one", settings({"shared noise": False}))
    old = {"shared noise": False, "depth model": 1, "frame filter": None}
    save(tmp_path, "4 numbers for texts", settings({**old, "timesteps": 7, "sigmas": []}))
    save(tmp_path, "5 another format", {"format": "other"})
    save(tmp_path, "6 another stream", settings({"seed": 4, "size": "64x64"}))
    (save(tmp_path, "7 damaged", {}) / core("run.partial_folder").OLD_STATE).write_bytes(b"nothing")
    return tmp_path


def test_the_own_folder_is_found_among_strangers(pack, strangers):
    own = save(strangers, "8 own", settings(IDENTITY))
    assert found(strangers) == own


def test_without_an_own_folder_there_is_a_new_one(pack, strangers):
    path = found(strangers)
    assert path.parent == strangers and not path.exists()
    assert path != found(strangers, {**IDENTITY, "seed": 5})


def test_the_identity_of_0_1_0_is_read_under_todays_titles(pack):
    old = {
        "shared noise": True,
        "depth model": "none",
        "frame filter": "FilterSettings(threshold=0.9, most_skipped=2)",
        "timesteps": [499.0, 259.0],
        "sigmas": [1.5, 0.25],
    }
    now = {"few-step model": "lcm"}
    assert core("run.state_file").upgraded(old, now) == {
        "timesteps": "499 259",
        "sigmas": [1.5, 0.25],
        "noise levels": "1.5 0.25",
        "noise": "same for all frames",
        "few-step model": "lcm",
        "depth": "no",
        "skipped frames": str(core("stream.similar_frames").SkipRule(0.9, 2)),
    }


@pytest.mark.parametrize("identity", [{}, {"stream": {}}, {"prompt": ""}])
def test_the_state_of_a_video_is_no_live_stream(pack, tmp_path, identity):
    file = save(tmp_path, "video", settings(identity)) / core("run.partial_folder").OLD_STATE
    with pytest.raises(core("run.saved_stream").OtherStreamError, match="is the state of a video"):
        core("run.saved_stream").SavedStream.read("name", file)
