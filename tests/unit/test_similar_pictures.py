"""Pictures that are skipped cost neither VAE nor depth, and a decode that fails loses none."""

import pytest
import torch
import toy_stream as toy
from fed_session import FedTranslator
from hypothesis import given, settings
from hypothesis import strategies as st
from still_clips import ALWAYS, CONFIGS, SEED, every_config, noisy, opened, still

from live2diff_core.run.translator import FrameTranslator
from live2diff_core.stream.similar_frames import SimilarFrameFilter, SkipRule


class Coder:
    """Pictures of latent size; counts what it codes, and fails to decode on demand."""

    def __init__(self):
        self.encoded = self.decoded = self.tries = 0
        self.fail_at = ()

    def encode(self, images):
        self.encoded += len(images)
        latents = images.movedim(-1, 1)
        return torch.cat([latents, torch.zeros_like(latents[:, :1])], dim=1)

    def decode(self, latents):
        self.tries += 1
        if self.tries in self.fail_at:
            raise InterruptedError("stopped while decoding")
        self.decoded += len(latents)
        return latents[:, :3].movedim(1, -1).sigmoid()


class Depth:
    """Brightness for depth; counts."""

    seen = 0

    def infer(self, images):
        self.seen += len(images)
        return images.mean(dim=3) * 7 + 1


def translator(config, options, steps=2, coder=None, depth=None):
    session = opened(config, steps)
    models = toy.OpenToy(session.model, coder or Coder(), depth)
    similar = SimilarFrameFilter(SEED, options)
    return FedTranslator(FrameTranslator(session.session, similar), models)


def translated(images, config, options, steps=2):
    made = translator(config, options, steps, depth=Depth())
    pushed = [picture for image in images for picture in made.push(image)]
    return [*pushed, *made.drain()]


@every_config
def test_skipped_frames_cost_nothing(config):
    images, coder, depth = still(20, (8, 15)), Coder(), Depth()
    made = translator(config, ALWAYS, 2, coder, depth)
    found = [picture for image in images for picture in made.push(image)]
    found += made.drain()
    kept = 5 if config is CONFIGS["warm-up"] else 3
    # Every picture and its depth go through the VAE.
    assert (coder.encoded, depth.seen, coder.decoded) == (2 * kept, kept, kept)
    rows = sum(len(plan.rows) for plan in made.opened.model.plans)
    assert len(found) == 20 and rows == 2 * kept
    changes = [f for f in range(1, 20) if found[f] is not found[f - 1]]
    assert changes == ([1, 2, 8, 15] if kept == 5 else [8, 15])


@every_config
@pytest.mark.parametrize("options", [None, SkipRule(1.0)])
def test_without_skipping_it_is_the_plain_stream(config, options):
    images = still(9)
    made, plain = (translated(images, config, o) for o in (options, SkipRule(0.5, 0)))
    assert len({picture.numpy().tobytes() for picture in made}) == 9
    assert all(torch.equal(*pair) for pair in zip(made, plain, strict=True))


@every_config
@given(data=st.data())
@settings(deadline=None, max_examples=12)
def test_saved_and_loaded_anywhere_is_uninterrupted(config, data):
    count, steps = data.draw(st.integers(1, 18)), data.draw(st.integers(1, 3))
    options = SkipRule(0.98, data.draw(st.integers(0, 4)))
    images, saves = noisy(count, 0.05), data.draw(st.sets(st.integers(0, 18)))
    made, found = translator(config, options, steps, depth=Depth()), []
    for frame, image in enumerate(images):
        if frame in saves:
            state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
            made = translator(config, options, steps, depth=Depth())
            made.load_state_dict(state)
        found += made.push(image)
    if count in saves:
        state = made.state_dict()
        made = translator(config, options, steps, depth=Depth())
        made.load_state_dict(state)
    found += made.drain()
    expected = translated(images, config, options, steps)
    assert len(found) == count == made.session.frames_out
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@every_config
@pytest.mark.parametrize("call", [1, 2, 3, 4, 6])
def test_a_failed_decode_loses_nothing(config, call):
    """The frame is in; what could not be decoded comes with the next frames, in order."""
    images, options = still(16, (4, 5, 9, 10, 11)), SkipRule(0.9, 2)
    coder, found, failures = Coder(), [], 0
    coder.fail_at = (call, call + 1)
    made = translator(config, options, 2, coder, Depth())
    for image in images:
        try:
            found += made.push(image)
        except InterruptedError:
            failures += 1
    while made.session.frames_out < 16 or made._latents or made._pictures:
        try:
            for picture in made.drain():
                found.append(picture)
        except InterruptedError:
            failures += 1
    expected = translated(images, config, options)
    assert failures == 2 and len(found) == 16
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_pictures_that_could_not_be_decoded_are_saved():
    images, coder = still(10, (3, 4, 6)), Coder()
    coder.fail_at = (2,)
    made, found = translator(None, ALWAYS, 2, coder, Depth()), []
    for image in images:
        try:
            found += made.push(image)
        except InterruptedError:
            state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
            made = translator(None, ALWAYS, 2, Coder(), Depth())
            made.load_state_dict(state)
    found += made.drain()
    expected = translated(images, None, ALWAYS)
    assert len(found) == 10
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("stage", ["encode", "model"])
def test_a_frame_that_failed_before_the_model_can_be_pushed_again(stage, monkeypatch):
    images, made, found = noisy(14, 0.05), translator(None, SkipRule(0.98, 3)), []
    model, coder = made.opened.model, made.opened.coder
    encode = coder.encode

    def fail_once(*_):
        coder.encode = encode
        raise InterruptedError("stopped while encoding")

    for frame, image in enumerate(images):
        if stage == "model":
            model.fail_at = 5
        elif frame == 6:
            coder.encode = fail_once
        try:
            found += made.push(image)
        except InterruptedError:
            found += made.push(image)
    found += made.drain()
    plain = translator(None, SkipRule(0.98, 3))
    expected = [p for image in images for p in plain.push(image)]
    expected += plain.drain()
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@every_config
def test_pictures_are_compared_as_bytes(config):
    """Floats of a graph and bytes of a file are the same pictures, and cost a byte a value."""
    images = still(12, (4, 7)).mul(255).round() / 255
    as_floats, as_bytes = (translator(config, SkipRule(0.95, 2)) for _ in range(2))
    for image in images:
        as_floats.push(image)
        as_bytes.push(image.mul(255).round().to(torch.uint8))
        first, second = (made.state_dict()["similar/skipped"] for made in (as_floats, as_bytes))
        assert torch.equal(first, second)
    last = [made.state_dict()["similar/last"] for made in (as_floats, as_bytes)]
    assert last[0].dtype == last[1].dtype == torch.uint8 and torch.equal(*last)


def test_a_saved_float_picture_is_still_compared():
    """Version 0.1.0 kept what it compared as floats in -1..1."""
    made, images = translator(None, SkipRule(0.9, 10)), still(4)
    made.push(images[0])
    state = made.state_dict()
    state["similar/last"] = state["similar/last"].float() / 127.5 - 1
    again = translator(None, SkipRule(0.9, 10))
    again.load_state_dict(state)
    again.push(images[1])
    assert int(again.state_dict()["similar/skipped"]) == 1
