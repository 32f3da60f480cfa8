"""Parts of StreamingT2V by themselves: layouts, memory, appearance, sampling, given frames."""

import hashlib
from fractions import Fraction

import numpy
import pytest
import torch

from devtools import standin_t2v
from live2diff_core.streamingt2v.appearance import clip_pixels
from live2diff_core.streamingt2v.denoiser import Denoiser, spatial_cross_attentions
from live2diff_core.streamingt2v.given_frames import (
    GivenFramesError,
    at_rate,
    is_request,
    open_long_video,
)
from live2diff_core.streamingt2v.sampling import DDIM, DPMSolver, T2VGuidance, sample_chunk
from live2diff_core.video.frame import PendingFrame, VideoInfo, WarningLog
from live2diff_core.video.reader import VideoReader
from live2diff_core.video.scene_detector import SceneDetector

# Of the released file's names and shapes of base_model, unet and resampler, sorted.
RELEASED = "78464e59870f14ac3bec5e16b3d03fabf157b6c0b6b3b9714fdb6c8697a6caf2"


@pytest.fixture(scope="module")
def denoiser():
    sizes = (standin_t2v.SIZES, standin_t2v.STAGES, 77, 16, 32, 40)
    made = Denoiser(*sizes).eval().requires_grad_(False)
    weights = standin_t2v.drawn(standin_t2v.denoiser_shapes())
    made.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return made


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_layout_is_that_of_the_released_file():
    shapes = standin_t2v.denoiser_shapes(*standin_t2v.RELEASED)
    lines = "\n".join(f"{name} {list(shape)}" for name, shape in sorted(shapes.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == RELEASED


def test_sixteen_attentions_mix_the_anchor_in(denoiser):
    assert len(spatial_cross_attentions(denoiser.base_model)) == 16


@torch.inference_mode()
def test_memory_and_anchor_matter_and_leave_nothing_behind(denoiser):
    x, time, text = random(1, 4, 16, 8, 8), torch.tensor(500), random(2, 77, 64, seed=1)
    anchor, pictures = random(2, 32, seed=2), random(8, 3, 64, 64, seed=3)
    plain = denoiser(x, time, denoiser.condition(text))
    remembered = denoiser(x, time, denoiser.condition(text, None, pictures))
    seen = denoiser(x, time, denoiser.condition(text, anchor))
    assert not torch.allclose(remembered, plain, atol=1e-4)
    assert not torch.allclose(seen, plain, atol=1e-4)
    backwards = denoiser(x, time, denoiser.condition(text, None, pictures.flip(0)))
    assert not torch.allclose(backwards, remembered, atol=1e-4)
    assert torch.equal(denoiser(x, time, denoiser.condition(text)), plain)
    with pytest.raises(RuntimeError):
        denoiser(x, time, denoiser.condition(text, None, pictures[:, :, :32]))
    assert torch.equal(denoiser(x, time, denoiser.condition(text)), plain)


@torch.inference_mode()
def test_the_merger_does_not_depend_on_the_order_of_the_features(denoiser):
    merger = denoiser.base_model.cross_attention_merger_down_blocks[4]
    skip, features = random(32, 32, 4, 4), random(16, 32, 4, 4, seed=1)
    merged = merger(skip, features, rows=2)
    assert not torch.allclose(merged, skip)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    shuffled = features.unflatten(0, (2, 8))[:, order].flatten(0, 1)
    assert torch.allclose(merger(skip, shuffled, rows=2), merged, atol=1e-5)


def test_pictures_are_stretched_for_clip():
    ramp = torch.linspace(-1, 1, 128).view(1, 1, 1, 128).expand(1, 3, 64, 128)
    pixels = clip_pixels(ramp)
    assert pixels.shape == (1, 3, 224, 224)
    red = pixels[0, 0, 100] * 0.26862954 + 0.48145466
    # Aligned corners: the ends are the picture's own.
    assert red[0].item() == pytest.approx(0, abs=1e-5)
    assert red[-1].item() == pytest.approx(1, abs=1e-5)
    large = clip_pixels(ramp.repeat(1, 1, 8, 4))
    assert large.shape == (1, 3, 224, 224)
    assert large.isfinite().all()


def test_guidance_of_equal_weights_needs_two_rows():
    eps = random(3, 4, 2, 2, 2)
    three, two = T2VGuidance(5.0, 3.0), T2VGuidance(5.0, 5.0)
    assert (len(three.rows), len(two.rows)) == (3, 2)
    null, text, both = eps.split(1)
    expected = null + 5 * (text - null) + 3 * (both - text)
    assert torch.allclose(three(eps), expected)
    same = T2VGuidance(5.0, 5.0)(torch.cat([null, both]))
    assert torch.allclose(same, null + 5 * (both - null))


@torch.inference_mode()
def test_a_chunk_without_added_noise_does_not_read_it(denoiser):
    condition = denoiser.condition(random(2, 77, 64, seed=1))
    start = random(4, 16, 8, 8)

    def sampled(eta, seed):
        noise = lambda step: start if step == 0 else random(4, 16, 8, 8, seed=seed + step)  # noqa: E731
        return sample_chunk(denoiser, condition, DDIM(2, eta), T2VGuidance(), noise)

    assert torch.equal(sampled(0.0, 1), sampled(0.0, 2))
    assert not torch.equal(sampled(1.0, 1), sampled(1.0, 2))


@pytest.mark.parametrize("steps", [1, 2, 10, 50])
def test_the_first_chunk_is_solved_as_published(steps):
    """DPM-Solver++ 2M, written out; the last step gives x0."""
    bars = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000).double() ** 2, 0)
    sigmas = ((1 - bars) / bars).sqrt()
    solver = DPMSolver(steps)
    assert solver.timesteps[0] == 999
    assert (solver.timesteps.diff() < 0).all()
    levels = [*(sigmas[int(time)] for time in solver.timesteps), torch.tensor(0.0).double()]
    x = random(1, 4, 2, 3, 3).double()
    expected, before = x.clone(), None
    for step, (now, then) in enumerate(zip(levels, levels[1:], strict=False)):
        alpha, alpha_then = ((1 + s**2) ** -0.5 for s in (now, then))
        x0 = random(*x.shape, seed=step).double()
        eps = (x - alpha * x0) / (alpha * now)
        x = solver.step(eps, step, x, None)
        slope = torch.zeros(())
        # The first step, and the last one to sigma 0, are of first order.
        if before is not None and then:
            ratio = (levels[step - 1] / now).log() / (now / then).log()
            slope = 0.5 / ratio * (x0 - before)
        rest = then / now
        expected = alpha_then * (rest * expected / alpha + (1 - rest) * (x0 + slope))
        assert torch.allclose(x, expected, rtol=1e-4, atol=1e-5), step
        before = x0
    assert torch.allclose(x, x0, atol=1e-5)


def given(count, size=16):
    for index in range(count):
        yield lambda index=index: numpy.full((size, size, 3), index, numpy.uint8)


@pytest.mark.parametrize(
    "count, frames, beyond, total, asked",
    [
        (0, 5, False, 5, 5),
        (1, 20, False, 20, 4),
        (1, 3, False, 3, 0),
        (16, 20, False, 20, 4),
        (20, 10, False, 20, 0),
        (18, 5, True, 23, 5),
    ],
)
def test_given_frames_come_first(count, frames, beyond, total, asked):
    reader = open_long_video(given(count), (8, 8), frames, beyond)
    found = list(reader)
    assert len(found) == total
    assert sum(is_request(frame.image) for frame in found) == asked
    assert [frame.time for frame in found] == [Fraction(index, 8) for index in range(total)]
    shown = [int(f.image[0, 0, 0]) for f in found if not is_request(f.image)]
    assert shown == ([0] * len(shown) if count == 1 else list(range(count)))
    skipping = open_long_video(given(count), (8, 8), frames, beyond)
    skipping.skip(total - 1)
    assert is_request(next(skipping).image) == bool(asked)


@pytest.mark.parametrize("count", [2, 15])
def test_a_few_given_frames_are_refused(count):
    with pytest.raises(GivenFramesError, match=f"not with {count}"):
        list(open_long_video(given(count), (8, 8), 20))


@pytest.mark.parametrize("rate, expected", [(24, [0, 3, 6, 9]), (4, [0, 0, 1, 1, 2, 2])])
def test_a_video_is_shown_at_another_rate(rate, expected):
    count = 12 if rate == 24 else 3
    frames = (
        PendingFrame(Fraction(index, rate), Fraction(1, rate), make)
        for index, make in enumerate(given(count))
    )
    info = VideoInfo(16, 16, Fraction(rate), Fraction(1, rate), count, "test")
    made = at_rate(VideoReader(info, frames, WarningLog("test")))
    assert [int(make()[0, 0, 0]) for make in made] == expected


def test_a_scene_begins_where_the_picture_changes():
    detector = SceneDetector(32, 32)
    generator = numpy.random.default_rng(0)
    scenes = [generator.integers(0, 256, (32, 32, 3), dtype=numpy.uint8) for _ in range(2)]
    shown = [scenes[0]] * 4 + [scenes[1] // 3] * 4
    assert [detector.begins(image) for image in shown] == [False] * 4 + [True] + [False] * 3
