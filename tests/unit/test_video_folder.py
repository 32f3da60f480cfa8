"""Which folders are videos: those of numbered pictures."""

import pytest

from live2diff_core.video.folder import (
    is_sequence,
    list_sequences,
    list_videos_and_sequences,
    picture_names,
)


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(folder, *arguments):
    return [path.as_posix() for path in list_videos_and_sequences(folder, *arguments)]


@pytest.mark.parametrize(
    "names",
    [
        ["shot_0001.png", "shot_0002.png"],
        ["1.jpg", "2.jpg", "10.jpg"],
        ["shot2_007.png"],
        ["A_1.PNG", "a_2.png"],
        ["take3 frame1 left.tif", "take3 frame2 left.tif"],
        ["img (1).webp", "img (2).webp", "notes.txt", "clip1.mp4", "._img (1).webp"],
    ],
)
def test_one_number_that_differs_makes_a_sequence(names):
    assert is_sequence(names)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["clip1.mp4", "clip2.mp4"],
        ["portrait.png"],
        ["portrait.png", "portrait (1).png"],
        ["a_1.png", "b_2.png"],
        ["shot1_left.png", "shot2_right.png"],
        ["shot2_1.png", "shot3_1.png"],
        ["shot_1.png", "shot_2.jpg"],
        [".shot_1.png"],
    ],
)
def test_other_pictures_are_none(names):
    assert not is_sequence(names)


def test_every_folder_of_numbered_pictures_is_a_video(tmp_path):
    touch(tmp_path, "shot10/0001.png", "shot2/0001.png", "shot2/0002.png", "empty/notes.txt")
    touch(tmp_path, "pasted/face.png", "pasted/tree.png", "clip3.mp4", ".thumbs/1.png")
    assert listed(tmp_path, "*.mp4") == ["clip3.mp4", "shot2", "shot10"]
    assert listed(tmp_path, "") == ["shot2", "shot10"]


def test_deeper_folders_only_when_asked(tmp_path):
    touch(tmp_path, "day1/take1/1.png", "day1/take1/masks/1.png", "day2/1.png")
    assert listed(tmp_path, "") == ["day2"]
    assert listed(tmp_path, "", True) == ["day1/take1", "day1/take1/masks", "day2"]


def test_the_folder_itself_counts_when_there_is_nothing_else(tmp_path):
    touch(tmp_path, "1.png", "2.png", "notes.txt")
    assert listed(tmp_path, "*.mp4") == ["."]
    touch(tmp_path, "sub/1.png")
    assert listed(tmp_path, "*.mp4") == ["sub"]
    touch(tmp_path, "clip.mp4")
    assert listed(tmp_path, "*.mp4") == ["clip.mp4", "sub"]


def test_a_collection_is_no_video(tmp_path):
    touch(tmp_path, "face.png", "tree.png")
    assert listed(tmp_path, "*.mp4") == []


def test_links_to_folders_are_not_followed(tmp_path):
    touch(tmp_path / "elsewhere", "1.png")
    folder = tmp_path / "shots"
    touch(folder, "shot1/1.png")
    (folder / "shot2").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "shot1" / "loop").symlink_to(folder, target_is_directory=True)
    for recursive in (False, True):
        assert [path.as_posix() for path in list_sequences(folder, recursive)] == ["shot1"]


def test_pictures_in_the_order_of_their_numbers(tmp_path):
    touch(tmp_path, "f10.png", "f9.png", "f1.png", ".f2.png", "f3.txt", "f4.png/inside.txt")
    assert picture_names(tmp_path) == ["f1.png", "f9.png", "f10.png"]
