"""Video From Folder in ComfyUI's process."""

import math
import os

import folder_paths
import pytest
from host_stream import node

DEFAULT = "*.mp4"


@pytest.fixture
def input_folder(tmp_path, pack, monkeypatch):
    """An input folder with a folder of three files that are no real videos."""
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    clips = tmp_path / "input" / "clips"
    (clips / "more").mkdir(parents=True)
    for name in ("clip10.mp4", "clip2.mp4", "more/clip3.mp4"):
        (clips / name).write_text(name)
    return tmp_path / "input"


def cls():
    return node("folder", "Live2DiffVideoFromFolder")


def run(index, folder="clips", pattern=DEFAULT, recursive=False):
    return cls().execute(folder, pattern, index, recursive).args


def test_videos_in_order_and_undecoded(input_folder):
    video, name, index, count = run(0)
    assert (name, index, count) == ("clip2", 0, 2)
    # Not opened: this file is no video at all.
    assert video.get_stream_source() == str(input_folder / "clips" / "clip2.mp4")
    assert run(1)[1:] == ("clip10", 1, 2)
    assert run(2, recursive=True)[1:] == ("clip3", 2, 3)


def test_the_end_is_an_error_that_says_what_to_do(input_folder):
    message = r"all 2 videos of .*clips are done \(index is 2\). Set index to 0"
    with pytest.raises(ValueError, match=message):
        run(2)
    assert "all 2 videos" in cls().validate_inputs("clips", DEFAULT, 2, False)
    assert cls().validate_inputs("clips", DEFAULT, 1, False) is True


@pytest.mark.parametrize(
    "folder, pattern, kind, words",
    [
        (
            "clips",
            "*.webm",
            FileNotFoundError,
            r"no file in .*clips .*recursive is off.* '\*.webm'",
        ),
        ("clips", "", FileNotFoundError, "matches ''"),
        ("nothing", DEFAULT, FileNotFoundError, "there is no folder 'nothing' in"),
        ("..", DEFAULT, ValueError, "only files inside may be read"),
        ("/etc", DEFAULT, ValueError, "only files inside may be read"),
    ],
)
def test_what_cannot_be_read_is_named(input_folder, folder, pattern, kind, words):
    with pytest.raises(kind, match=f"Video From Folder: .*{words}"):
        run(0, folder, pattern)
    assert "Video From Folder" in cls().validate_inputs(folder, pattern, 0, False)


def test_a_video_that_links_out_is_refused(input_folder):
    secret = input_folder.parent / "secret.mp4"
    secret.write_text("secret")
    (input_folder / "clips" / "clip1.mp4").symlink_to(secret)
    with pytest.raises(ValueError, match="clip1.mp4 leads out of"):
        run(0)
    assert run(1)[1] == "clip2"


def test_negative_index(input_folder):
    with pytest.raises(ValueError, match="first video has index 0"):
        run(-1)


def test_a_changed_folder_is_noticed(input_folder):
    def fingerprint(**changes):
        inputs = {"folder": "clips", "pattern": DEFAULT, "index": 0, "recursive": False}
        return cls().fingerprint_inputs(**{**inputs, **changes})

    before = fingerprint()
    assert before == fingerprint()
    (input_folder / "clips" / "clip11.mp4").touch()
    added = fingerprint()
    os.utime(input_folder / "clips" / "clip2.mp4", (1, 1))
    assert len({before, added, fingerprint()}) == 3
    # What other nodes give is not known when fingerprints are taken.
    assert math.isnan(fingerprint(folder=None)) and math.isnan(fingerprint(folder="nothing"))


def test_inputs_from_other_nodes_are_checked_when_they_are_there(input_folder):
    assert cls().validate_inputs("clips", DEFAULT, None, False) is True


def test_index_counts_up_by_default(pack):
    index = next(entry for entry in cls().GET_SCHEMA().inputs if entry.id == "index")
    assert index.as_dict()["control_after_generate"] == "increment"
