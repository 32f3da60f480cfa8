"""Pictures on the live page's wire."""

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def codecs(pack):
    return importlib.import_module("comfyui_live2diff.live_page.h264")


@pytest.fixture(scope="module")
def jpeg(pack):
    return importlib.import_module("comfyui_live2diff.live_page.jpeg")


def ramp(shift, size=(64, 96)):
    """A picture that moves with `shift`, in soft colours, which 4:2:0 keeps."""
    down, across = np.meshgrid(*map(np.arange, size), indexing="ij")
    return np.stack([down + shift, across, 128 + 0 * down], -1).clip(0, 255).astype(np.uint8)


def test_jpeg_comes_back(jpeg):
    found = jpeg.decoded(jpeg.encoded(ramp(5)).data)
    assert np.abs(found.astype(int) - ramp(5)).mean() < 3


def test_h264_comes_back_frame_by_frame_in_one_packet_each(codecs):
    encoder, decoder = codecs.H264Encoder(), codecs.H264Decoder()
    kinds = []
    for frame in range(100):
        picture = ramp(frame % 20)
        kind, coded = encoder.encode(picture)
        found = decoder.decode(coded.data)
        assert np.abs(found.astype(int) - picture).mean() < 6, frame
        kinds.append(kind)
    assert kinds[0] == 2 and kinds[90] == 2 and set(kinds[1:90]) == {3}


def test_another_size_begins_with_a_key_frame(codecs):
    encoder, decoder = codecs.H264Encoder(), codecs.H264Decoder()
    for size in [(64, 96), (128, 64), (64, 96)]:
        kind, coded = encoder.encode(ramp(1, size))
        assert kind == 2 and decoder.decode(coded.data).shape == (*size, 3)


def test_without_its_key_frame_a_frame_is_refused(codecs, jpeg):
    encoder = codecs.H264Encoder()
    encoder.encode(ramp(1))
    _, delta = encoder.encode(ramp(2))
    with pytest.raises(jpeg.PictureError):
        codecs.H264Decoder().decode(delta.data)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_bytes_of_any_kind_are_a_picture_or_refused(codecs, jpeg, data, cut):
    _, coded = codecs.H264Encoder().encode(ramp(1))
    for broken in (data, coded.data[:cut] + data, coded.data[cut:]):
        for decode in (codecs.H264Decoder().decode, jpeg.decoded):
            try:
                assert decode(broken).ndim == 3
            except jpeg.PictureError as error:
                assert str(error)
