"""The Similar-Frame Filter through the nodes: as many frames as came, for less work."""

import comfy_api.latest
import numpy
import pytest
import torch
from clips import make_clip
from host_stream import frames, node, patched, prompt, relative_error
from live_stream_inputs import pictures, sampled, step, stream

LIMIT = 1e-4
pytestmark = pytest.mark.usefixtures("folders")
# A still picture with a few changes, by the number of the picture shown.
SHOWN = [0, 0, 0, 1, 1, 1, 1, 2, 3, 3, 3, 3]
KEPT = [0, 3, 7, 8]
WARMUP_KEPT = [0, 1, 3, 7, 8]


@pytest.fixture
def rows(sd15):
    """Rows of each call of the UNet; ask for it before `model`."""
    counts = []

    def record(apply, call):
        counts.append(len(call["input"]))
        return apply(call["input"], call["timestep"], **call["c"])

    sd15.set_model_unet_function_wrapper(record)
    return counts


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, 4, 2)


def skip(threshold=0.9, most=10):
    return node("options", "Live2DiffSimilarFrameFilter").execute(threshold, most).args[0]


def same_as_before(clip):
    """Frames that equal the one before them."""
    return [f for f in range(1, len(clip)) if torch.equal(clip[f], clip[f - 1])]


def skipped(kept):
    return [frame for frame in range(len(SHOWN)) if frame not in kept]


@torch.inference_mode()
def sample(model, latents, **more):
    inputs = {"seed": 3, "steps": 4, "denoise": 0.75, "cfg": 1.0, **more}
    inputs |= {"model": model, "positive": prompt(), "negative": prompt(1)}
    sampler = node("sampler", "Live2DiffStreamSampler")
    samples = {"samples": latents, "kept": "as it was"}
    output = sampler.execute(samples, **inputs).args[0]
    assert output["kept"] == "as it was"
    return output["samples"]


def test_sampler_skips_still_frames(rows, sd15):
    latents = frames(4)[SHOWN]
    plain = sample(sd15, latents)
    assert sum(rows) == 3 * len(SHOWN) and not same_as_before(plain)
    rows.clear()
    found = sample(sd15, latents, frame_filter=skip())
    assert sum(rows) == 3 * len(KEPT)
    assert len(found) == len(SHOWN) and same_as_before(found) == skipped(KEPT)
    # Without a memory, what is translated is what it would be anyhow.
    assert relative_error(found[KEPT], plain[KEPT]) < LIMIT


def test_sampler_with_a_memory_sees_the_translated_frames_alone(rows, model):
    found = sample(model, frames(4)[SHOWN], frame_filter=skip(), denoise=0.25)
    assert sum(rows) == len(WARMUP_KEPT)
    assert len(found) == len(SHOWN) and same_as_before(found) == skipped(WARMUP_KEPT)


def test_sampler_skips_so_many_in_a_row(rows, sd15):
    found = sample(sd15, frames(1).expand(10, -1, -1, -1), frame_filter=skip(0.9, 3), denoise=0.25)
    assert same_as_before(found) == [1, 2, 3, 5, 6, 7, 9] and sum(rows) == 3


def test_a_threshold_of_1_is_no_filter(sd15):
    latents = frames(4)[SHOWN[:6]]
    assert torch.equal(sample(sd15, latents, frame_filter=skip(1.0)), sample(sd15, latents))


def test_a_change_of_the_prompt_is_seen_on_a_still_picture(rows, sd15):
    schedule = node("prompts", "Live2DiffPromptSchedule")
    positive = schedule.execute(prompt(), prompt(5), 4, 1, "keep").args[0]
    latents = {"samples": frames(1).expand(9, -1, -1, -1)}
    sampler = node("sampler", "Live2DiffStreamSampler")
    with torch.inference_mode():
        output = sampler.execute(
            latents,
            model=sd15,
            positive=positive,
            negative=prompt(1),
            seed=3,
            steps=4,
            denoise=0.25,
            cfg=1.0,
            frame_filter=skip(),
        )
    assert same_as_before(output.args[0]["samples"]) == [1, 2, 3, 6, 7, 8] and sum(rows) == 3


@pytest.mark.parametrize("cuts", [[1] * 12, [5, 1, 4, 2]], ids=str)
def test_step_equals_the_sampler(rows, model, vae, streams, cuts):
    images = pictures(4)[SHOWN]
    found = stream(images, model, vae, cuts, frame_filter=skip())
    assert sum(rows) == 2 * len(WARMUP_KEPT)
    assert same_as_before(found) == skipped(WARMUP_KEPT)
    assert torch.equal(found, sampled(images, model, vae, frame_filter=skip()))


def test_step_goes_on_skipping_after_save_and_load(rows, sd15, vae, streams):
    images = pictures(4)[SHOWN]
    expected, done = sampled(images, sd15, vae, frame_filter=skip()), []
    rows.clear()
    for index, image in enumerate(images):
        if index in (2, 4, 8):
            node("live_files", "Live2DiffSaveStream").execute("live", "live")
            streams.clear()
            loader = node("live_files", "Live2DiffLoadStream")
            loader.execute("live.safetensors [output]", "live", "once")
        result, at, _ = step(image[None], sd15, vae, finish=index == 11, frame_filter=skip())
        done += [result] if at >= 0 else []
    assert torch.equal(torch.cat(done), expected) and sum(rows) == 2 * len(KEPT)


def test_a_filter_can_come_and_go(rows, sd15, vae, streams):
    """It is no reason to start over; without it every frame is translated."""
    image = pictures(1)
    at = [step(image, sd15, vae, denoise=0.25)[1]]
    for options in (skip(), skip(), None, None, skip(), skip()):
        at.append(step(image, sd15, vae, denoise=0.25, frame_filter=options)[1])
    assert at == list(range(7))
    # A filter knows no frame from before it came, so it translates one first.
    assert sum(rows) == 1 + 1 + 2 + 1


def test_video_skips_still_frames(rows, sd15, vae, streams, tmp_path):
    generator = numpy.random.default_rng(0)
    blocks = generator.integers(0, 256, (4, 8, 8, 3), dtype=numpy.uint8)
    images = [blocks[shown].repeat(8, 0).repeat(8, 1) for shown in SHOWN]
    clip = make_clip(tmp_path, "prores", ticks=range(len(SHOWN)), images=images)
    video = comfy_api.latest.InputImpl.VideoFromFile(str(clip))
    inputs = {"seed": 3, "steps": 4, "denoise": 0.5, "cfg": 1.0, "frame_filter": skip(0.98)}
    inputs |= {"size": "keep", "width": 64, "height": 64}
    inputs |= {"codec": "lossless", "crf": 18, "checkpoint_every": 0}
    with torch.inference_mode():
        output = node("video", "Live2DiffStreamVideo").execute(
            video, model=sd15, vae=vae, positive=prompt(), negative=prompt(1), **inputs
        )
    found = output.args[0].get_components().images
    assert len(found) == len(SHOWN) and same_as_before(found) == skipped(KEPT)
    assert sum(rows) == 2 * len(KEPT)
