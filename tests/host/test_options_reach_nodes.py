"""Stream Options through the three stream nodes: each option counts, and is the engine's own."""

import folder_paths
import pytest
import torch
from fed_session import FedSession
from host_stream import core, node, patched, prompt
from live_stream_inputs import TinyVAE, pictures, sampled, step, stream
from stream_video import block_clip, translated

COUNT, CFG, DENOISE = 4, 1.6, 0.5
SETTINGS = {"cfg": CFG, "denoise": DENOISE}
FRESH, SAME = "fresh per frame", "same for all frames"
# guidance, delta, noise, few-step model.
USUAL = ("full", 1.0, FRESH, "lcm")
OPTIONS = {
    "noise": ("full", 1.0, SAME, "lcm"),
    "few-step model": ("full", 1.0, FRESH, "x0"),
    "no guidance": ("none", 1.0, FRESH, "lcm"),
    "self": ("self", 1.0, FRESH, "lcm"),
    "self's delta": ("self", 0.5, FRESH, "lcm"),
    "initialize": ("initialize", 1.0, FRESH, "lcm"),
    "initialize's delta": ("initialize", 0.5, FRESH, "lcm"),
}


@pytest.fixture(autouse=True)
def streams(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "out"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    registry = core("run.registry").STREAMS
    registry.clear()
    yield registry
    registry.clear()


@pytest.fixture
def model(sd15, motion):
    return patched(sd15, motion, 4, 2)


def options(choice):
    return node("options", "Live2DiffStreamOptions").execute(*choice).args[0]


@torch.inference_mode()
def by_the_engine(images, model, choice):
    """The same frames without any node: session, model and VAE, with the options by hand."""
    mode, delta, noise, rule = choice
    guidance = core("stream.guidance").Guidance(CFG, mode, delta)
    rule = core("stream.schedule").StepRule(rule)
    levels = core("host.sd15").host_schedule(model, 4, DENOISE, None, rule)
    vae = core("host.vae").FrameVAE(TinyVAE())
    size = (images.shape[1] // 8, images.shape[2] // 8)
    spec = core("run.spec").StreamSpec(
        model, prompt(), prompt(1), levels, guidance, 3, shared_noise=noise == SAME
    )
    host = spec.open(size, len(images)).model
    with host:
        session = FedSession(spec.start(), host)
        latents = torch.cat([host.from_latent(vae.encode(image[None])) for image in images])
        finished = torch.cat([session.push_all(latents), session.flush()])
        return torch.cat([vae.decode(host.to_latent(x0)[None])[0] for x0 in finished])


def as_bytes(images):
    return (images * 255).round().to(torch.uint8)


@pytest.mark.parametrize("what", ["usual", *OPTIONS])
def test_all_nodes_give_what_the_engine_gives(model, tmp_path, what):
    choice, clip = OPTIONS.get(what, USUAL), block_clip(tmp_path, range(COUNT))
    with core("video.reader").open_video(str(clip)) as reader:
        images = torch.stack([torch.from_numpy(frame.image).float() / 255 for frame in reader])
    expected = by_the_engine(images, model, choice)
    settings = {**SETTINGS, "options": options(choice)}
    assert torch.equal(sampled(images, model, TinyVAE(), **settings), expected)
    assert torch.equal(stream(images, model, TinyVAE(), [3, 1], **settings), expected)
    assert torch.equal(translated(clip, model, **settings), as_bytes(expected))


def test_every_option_makes_another_video(model):
    """So what equals the engine's equals only one of these."""
    images = pictures(COUNT, (64, 64))
    found = [as_bytes(by_the_engine(images, model, c)) for c in (USUAL, *OPTIONS.values())]
    for place, what in enumerate(("usual", *OPTIONS)):
        assert not any(torch.equal(found[place], other) for other in found[:place]), what


def test_no_options_are_the_usual_ones(model, tmp_path):
    images, clip, vae = pictures(COUNT), block_clip(tmp_path, range(COUNT)), TinyVAE()
    for run, frames in ((sampled, images), (stream, images), (translated, clip)):
        with_node = run(frames, model, vae, options=options(USUAL), **SETTINGS)
        assert torch.equal(run(frames, model, vae, **SETTINGS), with_node)


@pytest.mark.parametrize("what", OPTIONS)
def test_another_option_starts_a_live_stream_over(sd15, what):
    step(pictures(3), sd15, TinyVAE(), options=options(USUAL), **SETTINGS)
    later = step(pictures(1), sd15, TinyVAE(), options=options(OPTIONS[what]), **SETTINGS)
    assert later[1:] == (-1, True)
