"""Numbered pictures and animated WebP."""

from fractions import Fraction

import clips
import numpy as np
import pytest
from PIL import Image

from live2diff_core.video.frame import VideoError
from live2diff_core.video.reader import open_video


def read(source, *args, **kwargs):
    with open_video(source, *args, **kwargs) as reader:
        return list(reader), reader


def numbers(frames):
    return [clips.number_of(frame.image) for frame in frames]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".webp", ".tif", ".TIFF", ".bmp"])
def test_a_folder_is_sorted_as_people_count(tmp_path, suffix):
    folder = clips.make_pictures(tmp_path, suffix=suffix)
    (folder / "notes.txt").write_text("not a picture")
    # What macOS leaves beside a picture on foreign disks.
    (folder / f"._shot_5{suffix}").write_bytes(b"not a picture either")
    frames, reader = read(folder)
    assert numbers(frames) == list(range(12))
    assert reader.info.frame_rate == 24 and reader.info.frame_count == 12
    assert [frame.time for frame in frames] == [Fraction(index, 24) for index in range(12)]
    assert {frame.duration for frame in frames} == {Fraction(1, 24)}
    assert not reader.warnings


def test_a_missing_number_is_no_gap(tmp_path):
    """Many sequences count in steps; the pictures that are there follow one another."""
    folder = clips.make_pictures(tmp_path)
    for number in (0, 3, 4, 8):
        (folder / f"shot_{number}.png").unlink()
    frames, _ = read(folder)
    assert numbers(frames) == [1, 2, 5, 6, 7, 9, 10, 11]
    assert [frame.time for frame in frames] == [Fraction(index, 24) for index in range(8)]


@pytest.mark.parametrize("pattern", ["shot_%04d.png", "shot_%d.png", "shot_*.png", "*"])
def test_patterns(tmp_path, pattern):
    folder = clips.make_pictures(tmp_path, pattern="shot_{:04d}")
    if pattern != "*":
        Image.fromarray(clips.picture(99)).save(folder / "other_0000.png")
    assert numbers(read(folder / pattern, frame_rate=10)[0]) == list(range(12))
    assert numbers(read(folder / pattern, 0.5, 0.3, frame_rate=10)[0]) == [5, 6, 7]


def test_an_odd_frame_rate(tmp_path):
    frames, reader = read(clips.make_pictures(tmp_path), frame_rate=30000 / 1001)
    assert reader.info.frame_rate == Fraction(30000, 1001)
    assert frames[3].time == 3 * Fraction(1001, 30000)


def test_a_picture_that_cannot_be_read_leaves_a_gap(tmp_path):
    folder = clips.make_pictures(tmp_path)
    (folder / "shot_3.png").write_bytes(b"nothing")
    clips.cut(folder / "shot_7.png", 0.5).replace(folder / "shot_7.png")
    frames, reader = read(folder)
    assert numbers(frames) == [0, 1, 2, 4, 5, 6, 8, 9, 10, 11]
    assert [frame.index for frame in frames] == list(range(10))
    assert frames[3].time == Fraction(4, 24) and frames[2].duration == Fraction(2, 24)
    assert [("shot_3.png" in str(w), "shot_7.png" in str(w)) for w in reader.warnings] == [
        (True, False),
        (False, True),
    ]


def test_pictures_of_other_sizes_are_scaled_to_the_first(tmp_path):
    folder = clips.make_pictures(tmp_path, frames=3)
    Image.fromarray(clips.picture(1, (100, 80))).save(folder / "shot_1.png")
    frames, reader = read(folder)
    assert numbers(frames) == [0, 1, 2] and frames[1].image.shape == (48, 64, 3)
    assert "shot_1.png is 100x80" in str(reader.warnings[0])


def test_kinds_of_pictures(tmp_path):
    """16 bits and floats are scaled, not clipped; alpha is dropped; a camera's turn is applied."""
    image = clips.picture(5)
    deep = image[:, :, 0].astype(np.uint16) * 257
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(image)))
    exif = turned.getexif()
    exif[0x0112] = 6  # turn clockwise
    kinds = {
        "deep": (Image.fromarray(deep), {}),
        "alpha": (Image.fromarray(np.dstack([image, np.full((48, 64), 9, np.uint8)])), {}),
        "gray": (Image.fromarray(image[:, :, 0]), {}),
        "palette": (Image.fromarray(image).quantize(64), {}),
        "turned": (turned, {"exif": exif}),
        "float": (Image.fromarray(image[:, :, 0].astype(np.float32) / 255 + 1e-4), {}),
        "deep tiff": (Image.fromarray(deep), {}),
    }
    for name, (picture, options) in kinds.items():
        folder = tmp_path / name
        folder.mkdir()
        picture.save(folder / ("a.tif" if name in ("float", "deep tiff") else "a.png"), **options)
        frame = read(folder)[0][0]
        assert clips.number_of(frame.image) == 5, name
        assert frame.image.shape == (48, 64, 3)
        if name in ("deep", "gray", "float", "deep tiff"):
            assert np.array_equal(frame.image[:, :, 2], image[:, :, 0])


def test_no_pictures(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "shot_%d.png", "missing/shot_*.png"):
        with pytest.raises(VideoError, match="no PNG, JPEG, WebP, TIFF or BMP"):
            open_video(tmp_path / name)
    folder = clips.make_pictures(tmp_path, frames=2)
    for file in folder.iterdir():
        file.write_bytes(b"nothing")
    with pytest.raises(VideoError, match="None of the 2 pictures"):
        open_video(folder)


def test_pictures_outside_the_window(tmp_path):
    with pytest.raises(VideoError, match="12 pictures last 0.500 s"):
        open_video(clips.make_pictures(tmp_path), start=1)


def test_an_animated_webp_has_its_own_times(tmp_path):
    path = clips.make_webp(tmp_path, durations=[40, 100, 33, 500, 20, 70])
    for source in (path, clips.in_memory(path)):
        frames, reader = read(source)
        assert all(np.array_equal(f.image, clips.picture(f.index)) for f in frames)
        assert [frame.time * 1000 for frame in frames] == [0, 40, 140, 173, 673, 693]
        assert frames[-1].duration * 1000 == 70
        assert reader.info.codec == "webp" and reader.info.frame_count == 6
        assert reader.info.frame_rate == Fraction(6000, 763)
    assert numbers(read(path, 0.1, 0.5)[0]) == [2, 3]
    with open_video(path) as reader:
        reader.skip(4)
        assert numbers(list(reader)) == [4, 5]


def test_a_still_webp_is_one_frame(tmp_path):
    Image.fromarray(clips.picture(7)).save(tmp_path / "still.webp", lossless=True)
    assert numbers(read(tmp_path / "still.webp")[0]) == [7]


def test_a_webp_that_is_cut_off_gives_its_whole_frames(tmp_path):
    path = clips.make_webp(tmp_path)
    frames, reader = read(clips.cut(path, 0.7))
    assert numbers(frames) == list(range(len(frames))) and 2 <= len(frames) < 6
    assert "cut off" in str(reader.warnings[0])
    data = path.read_bytes()
    frames, reader = read(clips.BytesIO(data[: data.rindex(b"ANMF")]))
    assert numbers(frames) == list(range(5)) and "cut off" in str(reader.warnings[0])
    with pytest.raises(VideoError, match="WebP file that does not decode"):
        open_video(clips.cut(path, 0.05))
    with pytest.raises(VideoError, match="0.240 s long"):
        open_video(path, start=2)
