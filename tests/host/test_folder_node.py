"""Video From Folder in ComfyUI's process."""

import math
import os
import re
import shutil
import sys

import clips
import folder_paths
import pytest
from host_stream import PACK, node

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
    return node("video_from_folder", "Live2DiffVideoFromFolder")


def run(index, folder="clips", pattern=DEFAULT, recursive=False, **options):
    return cls().execute(folder, pattern, index, recursive, **options).args


@pytest.fixture
def shots(input_folder):
    """Two picture sequences of 12 and 3 frames, and a file that is no real video, in a folder."""
    folder = input_folder / "shots"
    folder.mkdir()
    for name, frames in (("shot.v10", 12), ("shot.v2", 3)):
        clips.make_pictures(folder, frames=frames, pattern="f{:04d}").rename(folder / name)
    (folder / "clip.mp4").write_text("clip")
    return folder


def test_videos_in_order_and_undecoded(input_folder):
    video, name, index, count = run(0)
    assert (name, index, count) == ("clip2", 0, 2)
    # Not opened: this file is no video at all.
    assert video.get_stream_source() == str(input_folder / "clips" / "clip2.mp4")
    assert run(1)[1:] == ("clip10", 1, 2)
    assert run(2, recursive=True)[1:] == ("clip3", 2, 3)


def test_picture_sequences_are_videos_named_after_their_folder(shots):
    found = [run(index, "shots") for index in range(3)]
    assert [entry[1:] for entry in found] == [
        ("clip", 0, 3),
        ("shot.v2", 1, 3),
        ("shot.v10", 2, 3),
    ]
    assert [found[at][0].get_frame_count() for at in (1, 2)] == [3, 12]
    assert found[1][0].get_frame_rate() == 24
    assert run(1, "shots", frame_rate=12.5)[0].get_frame_rate() == 12.5


def test_a_folder_of_pictures_is_one_video(shots):
    video, *told = run(0, "shots/shot.v10")
    assert told == ["shot.v10", 0, 1] and video.get_frame_count() == 12
    with pytest.raises(ValueError, match="all 1 videos are done.*shot.v10"):
        run(1, "shots/shot.v10")


def test_pictures_can_be_left_out(shots):
    assert run(0, "shots", frame_rate=0.0)[1:] == ("clip", 0, 1)
    with pytest.raises(FileNotFoundError, match="left out because frame_rate is 0"):
        run(0, "shots/shot.v2", frame_rate=0.0)


def test_pictures_that_are_no_sequence_are_named(input_folder):
    for name in ("tree.png", "face.png"):
        (input_folder / "clips" / name).touch()
    message = (
        r"\(face.png, tree.png\) are not one video: their names must differ in one number only"
    )
    with pytest.raises(FileNotFoundError, match=message):
        run(0, pattern="*.webm")


def test_the_end_is_an_error_that_says_what_to_do(input_folder):
    message = r"all 2 videos are done. Set index to 0 .*\(index is 2; the folder is .*clips.\)"
    with pytest.raises(ValueError, match=message):
        run(2)
    assert re.search(message, cls().validate_inputs("clips", DEFAULT, 2, False))
    assert cls().validate_inputs("clips", DEFAULT, 1, False) is True


@pytest.mark.parametrize(
    "folder, pattern, kind, words",
    [
        (
            "clips",
            "*.webm",
            FileNotFoundError,
            r"no file matches '\*.webm' in .*clips \(recursive is off\)",
        ),
        ("clips", "", FileNotFoundError, "no file matches ''"),
        ("nothing", DEFAULT, FileNotFoundError, "there is no folder 'nothing' in"),
        ("..", DEFAULT, ValueError, "only files inside may be read"),
        ("/etc", DEFAULT, ValueError, "only files inside may be read"),
    ],
)
def test_what_cannot_be_read_is_named(input_folder, folder, pattern, kind, words):
    with pytest.raises(kind, match=f"Video From Folder: .*{words}"):
        run(0, folder, pattern)
    assert re.search(words, cls().validate_inputs(folder, pattern, 0, False))


def test_a_video_that_links_out_is_refused(input_folder):
    secret = input_folder.parent / "secret.mp4"
    secret.write_text("secret")
    (input_folder / "clips" / "clip1.mp4").symlink_to(secret)
    with pytest.raises(ValueError, match="clip1.mp4 leads out of"):
        run(0)
    assert run(1)[1] == "clip2"


def test_a_picture_that_links_out_is_refused(shots):
    secret = shots.parent.parent / "secret.png"
    shutil.copy(shots / "shot.v2" / "f0001.png", secret)
    (shots / "shot.v2" / "f0003.png").symlink_to(secret)
    with pytest.raises(ValueError, match="f0003.png leads out of"):
        run(1, "shots")
    assert run(2, "shots")[1] == "shot.v10"


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


def test_a_changed_picture_is_noticed(shots):
    def fingerprint(frame_rate=24.0):
        return cls().fingerprint_inputs("shots", DEFAULT, 0, False, frame_rate)

    before, without = fingerprint(), fingerprint(0.0)
    os.utime(shots / "shot.v2" / "f0001.png", (1, 1))
    assert fingerprint() != before and fingerprint(0.0) == without
    assert math.isnan(fingerprint(None))


def test_inputs_from_other_nodes_are_checked_when_they_are_there(input_folder):
    assert cls().validate_inputs("clips", DEFAULT, None, False) is True
    assert cls().validate_inputs("clips", DEFAULT, 7, False, None) is True


def test_the_node_shows_which_video_it_is(input_folder, monkeypatch):
    shown = []
    module = sys.modules[f"{PACK}.nodes.video_from_folder"]
    monkeypatch.setattr(module, "show_text", lambda node_id, text: shown.append(text))
    run(1)
    assert cls().validate_inputs("clips", DEFAULT, 1, False) is True
    assert shown == ["2 of 2: clip10.mp4"]
    told = cls().validate_inputs("clips", DEFAULT, 2, False)
    assert shown[1].startswith("All 2 videos are done. Set index to 0")
    assert told.endswith(shown[1][1:])
    with pytest.raises(ValueError, match="are done"):
        run(2)
    assert shown[2:] == shown[1:2]


def test_index_counts_up_by_default(pack):
    index = next(entry for entry in cls().GET_SCHEMA().inputs if entry.id == "index")
    assert index.as_dict()["control_after_generate"] == "increment"
