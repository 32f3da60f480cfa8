"""The VAE of streams: frames in 0..1, and whether they came from finite numbers."""

import math
import threading

import comfy.sd
import pytest
import torch
from host_stream import core
from live_stream_inputs import TinyCoder, TinyVAE, pictures
from lost_frames import HalfCoder, HalfVAE


@pytest.fixture
def coder(pack):
    return core("host.vae").FrameVAE(TinyVAE())


def test_bytes_scaled_on_the_device_are_the_floats_of_a_graph(coder):
    found = pictures(2).mul(255).round()
    as_floats, as_bytes = found / 255, found.to(torch.uint8)
    to_float = core("run.translator").to_float
    assert torch.equal(coder.encode(to_float(as_bytes)), coder.encode(as_floats))


def test_frames_lie_in_0_to_1(coder):
    frames, finite = coder.decode(coder.encode(pictures(2)) * 100)
    assert frames.shape == (2, 64, 80, 3) and finite
    assert frames.min() == 0 and frames.max() == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_noticed(coder, value):
    """Infinity is no longer to be seen in a frame, which the host clamps to 0..1."""
    latents = coder.encode(pictures(2))
    assert coder.decode(latents)[1]
    latents[1, 2, 3, 4] = value
    frames, finite = coder.decode(latents)
    assert not finite and finite.shape == ()
    assert torch.equal(frames[0], coder.decode(latents[:1])[0][0])


class ShortOfMemory(TinyCoder):
    """Has room for pictures of so many latent pixels at once; counts its failures."""

    def __init__(self, most):
        super().__init__()
        self.most, self.failed = most, 0

    def check(self, pixels):
        if pixels > self.most:
            self.failed += 1
            raise torch.cuda.OutOfMemoryError("Allocation on device")

    def encode(self, pixels):
        self.check(pixels.shape[2] * pixels.shape[3] / 64)
        return super().encode(pixels)

    def decode(self, latents):
        self.check(latents.shape[2] * latents.shape[3])
        return super().decode(latents)


def short_of(most):
    vae = TinyVAE()
    vae.first_stage_model = ShortOfMemory(most)
    return vae


BIG = (128, 320)  # 16 x 40 latent pixels.


@pytest.mark.parametrize("most, tile", [(640, 0), (300, 16), (100, 8)])
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_tiles_once_memory_runs_out(coder, way, most, tile):
    """This VAE sees no borders, so that tiles give the same; and it runs out once per size."""
    vae = short_of(most)
    short, images = core("host.vae").FrameVAE(vae), pictures(1, BIG)
    latents = coder.encode(images)
    for _ in range(3):
        if way == "encode":
            torch.testing.assert_close(short.encode(images), latents)
        else:
            expected, found = coder.decode(latents), short.decode(latents)
            torch.testing.assert_close(found[0], expected[0])
            assert found[1] and found[0].device == short.device
        assert short.tile == tile
    assert vae.first_stage_model.failed == {0: 0, 16: 1, 8: 2}[tile]


def test_a_vae_that_has_no_room_for_the_smallest_tile_fails():
    with pytest.raises(torch.cuda.OutOfMemoryError):
        core("host.vae").FrameVAE(short_of(20)).encode(pictures(1, BIG))


def test_other_errors_are_not_tried_again(coder):
    coder._vae.first_stage_model.decode = lambda latents: 1 / 0
    with pytest.raises(ZeroDivisionError):
        coder.decode(torch.zeros(1, 4, 8, 8))
    assert coder.tile == 0


class Blurred(TinyCoder):
    """Sees beyond its tiles' borders, as real ones do."""

    def encode(self, pixels):
        return torch.nn.functional.avg_pool2d(super().encode(pixels), 5, 1, 2)

    def decode(self, latents):
        return torch.nn.functional.avg_pool2d(super().decode(latents), 9, 1, 4)


@pytest.mark.parametrize("way", ["encode", "decode"])
@torch.inference_mode()
def test_tiles_are_those_of_the_host(way):
    vae, tile = TinyVAE(), 16
    vae.first_stage_model = Blurred()
    vae.upscale_ratio = vae.downscale_ratio = 8
    vae.output_device, vae.vae_output_dtype = vae.device, lambda: torch.float32
    coder = core("host.vae").FrameVAE(vae)
    coder.tile = tile
    images, latents = pictures(1, BIG), torch.randn(1, 4, 16, 40)
    if way == "encode":
        pixels = images.movedim(-1, 1)
        expected = comfy.sd.VAE.encode_tiled_(vae, pixels, 8 * tile, 8 * tile, tile)
        torch.testing.assert_close(coder.encode(images), expected)
    else:
        expected = comfy.sd.VAE.decode_tiled_(vae, latents, tile, tile, tile // 4).movedim(1, -1)
        torch.testing.assert_close(coder.decode(latents)[0], expected)


def test_float32_is_tried_with_a_copy(coder):
    """The host's own weights stay as they are, and other threads may use them meanwhile."""
    vae = HalfVAE(HalfCoder(encodes=True, decodes=True))
    half, white = core("host.vae").FrameVAE(vae), torch.ones(1, 16, 16, 3)
    vae.first_stage_model.requires_grad_(False)
    assert half.half and not half.encode(white).isfinite().all()
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(half.encode(white, exact=True)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    exact = TinyVAE()
    exact.first_stage_model.load_state_dict(vae.first_stage_model.state_dict())
    wanted = core("host.vae").FrameVAE(exact)
    assert len(found) == 3 and all(torch.equal(x, wanted.encode(white)) for x in found)
    latents = torch.full((1, 4, 2, 2), 50.0)
    vae.first_stage_model.bright = lambda values: True
    frames, finite = half.decode(latents)
    assert not finite
    again, finite = half.decode(latents, exact=True)
    assert finite and torch.equal(again, wanted.decode(latents)[0])
    assert all(p.dtype == torch.float16 for p in vae.first_stage_model.parameters())
    assert not math.isnan(again.sum())
