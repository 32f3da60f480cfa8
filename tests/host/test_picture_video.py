"""Numbered pictures as a VIDEO, for Stream Video and for core's nodes."""

import importlib
from fractions import Fraction
from io import BytesIO

import av
import clips
import numpy as np
import pytest
import torch
from comfy_api.latest import Input, InputImpl, Types
from host_stream import PACK, core

from live2diff_core.video.reader import open_video

RATE = 10.0


@pytest.fixture
def module(pack):
    """nodes/picture_video.py as the host has it."""
    return importlib.import_module(f"{PACK}.nodes.picture_video")


@pytest.fixture
def pictures(tmp_path):
    return clips.make_pictures(tmp_path)


@pytest.fixture
def video(module, pictures):
    return module.PictureVideo(str(pictures), RATE)


def numbers(images):
    return [clips.number_of((image * 255).round().numpy().astype(np.uint8)) for image in images]


def test_is_a_video_to_the_host(video):
    assert isinstance(video, Input.Video)
    assert video.get_dimensions() == clips.SIZE
    assert (video.get_frame_count(), video.get_frame_rate()) == (12, Fraction(10))
    assert video.get_duration() == pytest.approx(1.2)
    assert video.get_container_format() == "image2"


def test_components_are_the_pictures(video):
    parts = video.get_components()
    assert parts.images.shape == (12, 48, 64, 3) and parts.images.dtype == torch.float32
    expected = np.stack([clips.picture(number) for number in range(12)])
    assert np.array_equal((parts.images * 255).round().numpy(), expected)
    assert parts.frame_rate == 10 and parts.audio is None


def test_a_broken_picture_is_left_out(pictures, video):
    (pictures / "shot_3.png").write_bytes(b"nothing")
    assert numbers(video.get_components().images) == [0, 1, 2, *range(4, 12)]


def test_stream_video_reads_the_pictures_themselves(module, pictures, video):
    source, rate = module.stream_source(video)
    assert (source, rate) == (str(pictures), RATE)
    trimmed = video.as_trimmed(0.5, 0.3)
    with open_video(source, *trimmed.get_active_trim_window(), frame_rate=rate) as reader:
        assert [clips.number_of(frame.image) for frame in reader] == [5, 6, 7]
    file = clips.make_clip(pictures, name="clip")
    assert module.stream_source(InputImpl.VideoFromFile(str(file)))[0] == str(file)


@pytest.mark.parametrize("where", ["file", "memory"])
def test_is_saved_as_core_saves_frames(video, tmp_path, where):
    target = str(tmp_path / "out.mp4") if where == "file" else BytesIO()
    video.save_to(target, format=Types.VideoContainer.MP4, metadata={"prompt": {"a": 1}})
    if where == "memory":
        target.seek(0)
    with av.open(target) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
        assert container.metadata["prompt"] == '{"a": 1}'
    assert [clips.number_of(frame) for frame in frames] == list(range(12))


def test_nodes_that_want_bytes_get_a_video(video):
    """A folder is nothing that FFmpeg opens, so the host's way to a stream gives a file."""
    with av.open(video.get_stream_source()) as container:
        assert len(list(container.decode(video=0))) == 12


@pytest.mark.parametrize(
    ("start", "duration", "expected"),
    [
        (0, 0, range(12)),
        (0.5, 0, range(5, 12)),
        (0, 0.3, range(3)),
        (-0.3, 0, range(9, 12)),
        (-9, 0.2, range(2)),
        (1.0, 5.0, range(10, 12)),
        (None, None, range(12)),
    ],
)
def test_trimming(video, start, duration, expected):
    trimmed = video.as_trimmed(start, duration)
    assert numbers(trimmed.get_components().images) == list(expected)
    assert trimmed.get_frame_count() == len(expected)
    assert trimmed.get_duration() == pytest.approx(len(expected) / RATE)


def test_trimming_a_part_stays_inside_it(video):
    part = video.as_trimmed(0.2, 0.6)
    assert numbers(part.as_trimmed(0.1, 0).get_components().images) == [3, 4, 5, 6, 7]
    assert numbers(part.as_trimmed(0.1, 9).get_components().images) == [3, 4, 5, 6, 7]
    assert numbers(part.as_trimmed(-0.2, 0.1).get_components().images) == [6]


def test_what_cannot_be_trimmed(video):
    assert video.as_trimmed(1.2, 0) is None
    assert video.as_trimmed(1.0, 0.5, strict_duration=True) is None
    assert video.as_trimmed(1.0, 0.2, strict_duration=True) is not None


def test_no_pictures(module, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(core("video.reader").VideoError, match="no PNG"):
        module.PictureVideo(str(tmp_path / "empty"), RATE).get_components()
