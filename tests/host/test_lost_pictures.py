"""Pictures that VAE or depth make NaN of: tried in float32, counted, and the stream goes on."""

import math

import folder_paths
import pytest
import torch
from clips import make_clip
from host_stream import core, frames, node, patched, prompt
from live_stream_inputs import TinyCoder, TinyDepth, TinyVAE, pictures, step
from lost_frames import HalfCoder, HalfDepth, HalfVAE, Rows, assert_clean, shades, spoilt, still
from stream_video import translate_video, translated

COUNT, BRIGHT = 12, (5, 6, 9)


@pytest.fixture(autouse=True)
def folders(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    core("run.registry").STREAMS.clear()
    return tmp_path


class Always(HalfCoder):
    """Gives NaN for every frame, unless it computes in float32."""

    def _through(self, values):
        return values if values.dtype == torch.float32 else values * math.nan


class Encoded(TinyCoder):
    """Encodes in `dtype` and decodes in float32, with the same weights."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype
        self.load_state_dict({k: v.to(dtype) for k, v in self.state_dict().items()})

    def encode(self, pixels):
        half = pixels.to(self.dtype)
        return torch.nn.functional.conv2d(half, self.down.to(self.dtype), stride=8).float()


class Failing(TinyCoder):
    """Decodes some pictures, by their numbers, to NaN."""

    def __init__(self, numbers):
        super().__init__()
        self.numbers, self.decoded = set(numbers), 0

    def decode(self, latents):
        found = super().decode(latents)
        self.decoded += 1
        return found * math.nan if self.decoded - 1 in self.numbers else found


def in_float32(vae):
    """The same weights, rounded to float16, in float32."""
    exact = TinyVAE()
    exact.first_stage_model.load_state_dict(vae.first_stage_model.state_dict())
    return exact


def clip(folder, images):
    shown = images.mul(255).round().to(torch.uint8).numpy()
    return make_clip(folder, "prores", ticks=range(len(shown)), images=list(shown))


def live(images, model, vae, **changes):
    """Stream Step, a frame per run: pictures, and the state of the stream after every run."""
    found = []
    for index, image in enumerate(images):
        last = index == len(images) - 1
        result, first, _ = step(image[None], model, vae, finish=last, **changes)
        if first >= 0:
            found.append(result)
        if not last:
            assert_clean(core("run.registry").STREAMS.get("live").state_dict())
    return torch.cat(found)


def differing(found, expected):
    """The frames that are not close."""
    return [n for n, pair in enumerate(zip(found, expected, strict=True)) if not close(*pair)]


def close(found, expected):
    return (found.float() - expected.float()).abs().mean() < 0.02 * expected.float().abs().max()


@pytest.mark.parametrize("memory", [False, True])
def test_a_vae_that_overflows_encodes_in_float32_from_then_on(sd15, motion, caplog, memory):
    """What is on its way until that is known is lost, and shows the frame before it."""
    images, vae = shades(COUNT, BRIGHT), HalfVAE(HalfCoder(encodes=True))
    model = patched(sd15, motion, 4, 2) if memory else sd15
    found = live(images, model, vae)
    assert still(found) == [5, 6] and found.isfinite().all()
    if not memory:
        # With one, the small network's random weights make much of float16's rounding.
        core("run.registry").STREAMS.clear()
        assert differing(found, live(images, model, in_float32(vae))) == [5, 6]
    assert "frame 5 came out as NaN or infinite, in the VAE's encoder" in caplog.text
    assert "--fp32-vae" in caplog.text


def test_depth_that_overflows_is_estimated_in_float32_from_then_on(sd15, motion, caplog):
    images, model = shades(COUNT, BRIGHT), patched(sd15, motion, 4, 2)
    found = live(images, model, TinyVAE(), depth_model=HalfDepth())
    core("run.registry").STREAMS.clear()
    exact = live(images, model, TinyVAE(), depth_model=TinyDepth())
    assert still(found) == [5, 6] and found.isfinite().all()
    assert torch.equal(found[:5], exact[:5])
    assert "in the depth model" in caplog.text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_what_the_decoder_cannot_make_is_decoded_again(sd15, folders, caplog, dtype):
    """By the thread that waits for it: the picture is that of float32, at every frame."""
    file = clip(folders, shades(COUNT, BRIGHT))

    caplog.set_level("INFO")
    found = translated(file, sd15, HalfVAE(Always(decodes=True), dtype))
    exact = translated(file, sd15, HalfVAE(Encoded(dtype), torch.float32))
    assert torch.equal(found, exact) and not still(found)
    assert f"{COUNT} frames (first: frame 0) came out of the VAE's decoder" in caplog.text


def test_what_cannot_be_decoded_shows_the_picture_before(sd15, folders, caplog):
    """In float32 there is nothing left to try."""
    caplog.set_level("INFO")
    images = shades(COUNT, BRIGHT)
    vae = TinyVAE()
    vae.first_stage_model = Failing([4, 5, 9])
    found = translated(clip(folders, images), sd15, vae)
    whole = translated(clip(folders, images), sd15, TinyVAE())
    assert still(found) == [4, 5, 9]
    kept = [n for n in range(COUNT) if n not in (4, 5, 9)]
    assert torch.equal(found[kept], whole[kept])
    assert "frame 4 came out as NaN or infinite, in the VAE's decoder" in caplog.text
    assert "3 frames came out as NaN or infinite (first: frame 4" in caplog.text


def test_a_video_of_nothing_else_ends_with_the_reason(sd15, folders):
    vae = TinyVAE()
    vae.first_stage_model = Failing(range(100))
    error = core("run.finite").NotFiniteError
    with pytest.raises(error, match=r"8 frames in a row.*the VAE's decoder.*--fp32-vae"):
        translate_video(clip(folders, shades(COUNT, BRIGHT)), sd15, vae)


@torch.inference_mode()
def test_a_clip_of_latents_goes_on_and_ends(sd15, motion, caplog):
    """The Stream Sampler."""

    def sample(lost):
        rows = Rows(sd15, lost)
        model = patched(sd15, motion, 4, 2)
        sampler = node("sampler", "Live2DiffStreamSampler")
        with spoilt(sd15.model.diffusion_model.middle_block[0], rows):
            return sampler.execute(
                {"samples": frames(COUNT)},
                model=model,
                positive=prompt(),
                negative=prompt(1),
                seed=3,
                steps=4,
                denoise=0.5,
                cfg=1.0,
            ).args[0]["samples"]

    found = sample([5])
    assert found.isfinite().all() and still(found) == [5]
    assert "frame 5 came out as NaN or infinite, in the UNet" in caplog.text
    with pytest.raises(core("run.finite").NotFiniteError, match="frame 10, in the UNet"):
        sample(range(3, 11))
    assert still(sample(range(3, 10))) == [*range(3, 10)]


@torch.inference_mode()
def test_a_resumed_stream_changes_to_float32_at_the_same_frame(sd15):
    images = shades(COUNT, BRIGHT)
    whole, resumed = (pushed(sd15, images, cuts) for cuts in ((), (3, 6, 7, 8)))
    assert torch.equal(resumed, whole) and still(whole) == [5, 6]


def pushed(model, images, cuts):
    """A stream of a VAE that overflows; saved and loaded before the frames `cuts`."""
    spec = core("run.spec").StreamSpec(
        model,
        prompt(),
        prompt(1),
        core("host.sd15").host_schedule(model, 4, 0.5),
        core("stream.guidance").Guidance(1.0),
        3,
        vae=HalfVAE(HalfCoder(encodes=True)),
    )
    translator, found = spec.start_translator(eight_bit=True), []
    for n, image in enumerate(images):
        if n in cuts:
            state = {name: tensor.clone() for name, tensor in translator.state_dict().items()}
            assert_clean(state)
            translator = spec.start_translator(eight_bit=True)
            translator.load_state_dict(state)
        with spec.open((8, 8), None) as opened:
            translator.open(opened)
            found += [copy.get() for copy in translator.push(opened, image)]
    with spec.open((8, 8), None) as opened:
        translator.open(opened)
        return torch.stack([*found, *(copy.get() for copy in translator.drain(opened))])


class ShortOnce(TinyCoder):
    """Runs out of memory at one picture; counts the pixels of what it is given."""

    def __init__(self, way, number):
        super().__init__()
        self.way, self.number, self.seen = way, number, []

    def _note(self, way, height):
        if way == self.way:
            self.seen.append(height)
            if len(self.seen) - 1 == self.number:
                raise torch.cuda.OutOfMemoryError("Allocation on device")

    def encode(self, pixels):
        self._note("encode", pixels.shape[2])
        return super().encode(pixels)

    def decode(self, latents):
        self._note("decode", latents.shape[2] * 8)
        return super().decode(latents)


def short_once(way, number):
    vae = TinyVAE()
    vae.first_stage_model = ShortOnce(way, number)
    return vae


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_a_video_goes_on_in_tiles_once_memory_runs_out(sd15, folders, caplog, way):
    images = pictures(8, (128, 128))
    vae = short_once(way, 4)
    found = translated(clip(folders, images), sd15, vae)
    whole = translated(clip(folders, images), sd15, TinyVAE())
    # The small VAE sees no borders, so that its tiles differ by rounding alone.
    assert (found.int() - whole.int()).abs().max() <= 1
    seen = vae.first_stage_model.seen
    assert seen[:5] == [128] * 5 and min(seen[5:]) < 128 and seen[5:].count(128) < len(seen[5:])
    assert caplog.text.count("the VAE ran out of memory") == 1 and "64 pixels" in caplog.text


@torch.inference_mode()
@pytest.mark.parametrize("way", ["encode", "decode"])
def test_a_resumed_stream_goes_on_in_tiles(sd15, way):
    """From the frame on at which memory ran out; and a stream of an earlier version does not."""
    images, tiles = pictures(8, (128, 128)), []

    def spec(vae):
        schedule = core("host.sd15").host_schedule(sd15, 4, 0.5)
        guidance = core("stream.guidance").Guidance(1.0)
        return core("run.spec").StreamSpec(
            sd15, prompt(), prompt(1), schedule, guidance, 3, vae=vae
        )

    first = spec(short_once(way, 2))
    translator = first.start_translator()
    for image in images[:4]:
        # Every frame in an opening of its own, as in a live stream.
        with first.open((16, 16), None) as opened:
            translator.open(opened)
            translator.push(opened, image)
            tiles.append(opened.tile)
    assert tiles == ([0, 0, 8, 8] if way == "encode" else [0, 0, 0, 8])
    state = translator.state_dict()
    old = {name: t for name, t in state.items() if not name.startswith(("computing/", "last/"))}
    for saved, tile in ((state, 8), (old, 0)):
        second = spec(TinyVAE())
        translator = second.start_translator()
        translator.load_state_dict(saved)
        with second.open((16, 16), None) as opened:
            translator.open(opened)
            translator.push(opened, images[4])
            assert opened.tile == tile
