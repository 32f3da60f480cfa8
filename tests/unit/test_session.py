"""The promises of a stream: frame-exact, chunk-invariant, constant memory."""

import pytest
import torch
import toy_stream as toy
from hypothesis import given, settings
from hypothesis import strategies as st

from live2diff_core.live2diff.window import AttentionMode, AttentionWindow

CONFIGS = [None, *(AttentionWindow(6, 3, mode) for mode in AttentionMode)]
NAMES = ["no memory", *(mode.value for mode in AttentionMode)]
every_config = pytest.mark.parametrize("config", CONFIGS, ids=NAMES)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@every_config
@pytest.mark.parametrize("steps", range(1, 9))
def test_streamed_is_the_whole_clip_at_once(config, steps):
    """Pipelined, cached and cut into frames, against neither: figure 1 over all frames."""
    for count in (1, 2, 3, 6, 7, 20):
        latents, depth = toy.frames(count), toy.frames(count, seed=1)
        found = toy.stream(toy.ToyModel(), latents, depth, steps, config)
        close(found, toy.expected(toy.ToyModel(), latents, depth, steps, config))


@every_config
@given(st.integers(1, 40), st.integers(1, 8))
@settings(deadline=None, max_examples=15)
def test_as_many_frames_out_as_in(config, count, steps):
    latents = toy.frames(count)
    session = toy.session(toy.ToyModel(), steps, config)
    left = 0
    for latent in latents:
        left += len(session.push(latent))
        assert session.frames_out == left <= session.frames_in
    left += len(session.flush())
    assert left == count == session.frames_in == session.frames_out


def test_the_papers_window_over_a_long_clip():
    latents = toy.frames(60)
    found = toy.stream(toy.ToyModel(), latents, None, 2, AttentionWindow())
    close(found, toy.expected(toy.ToyModel(), latents, None, 2, AttentionWindow()))


@every_config
@given(st.data())
@settings(deadline=None, max_examples=15)
def test_chunks_change_nothing(config, data):
    count, steps = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 5))
    latents, depth = toy.frames(count), toy.frames(count, seed=1)
    cuts = sorted(data.draw(st.sets(st.integers(1, count), max_size=6)))
    session = toy.session(toy.ToyModel(), steps, config)
    parts = [
        session.push_all(latents[start:stop], depth[start:stop])
        for start, stop in zip([0, *cuts], [*cuts, count], strict=True)
    ]
    found = torch.cat([*parts, session.flush()])
    assert torch.equal(found, toy.stream(toy.ToyModel(), latents, depth, steps, config))


@every_config
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("call", range(1, 12))
def test_interrupted_frame_can_be_pushed_again(config, steps, call):
    """The model fails after it has written its caches; trying again gives the same frames."""
    latents = toy.frames(9)
    model = toy.ToyModel()
    session = toy.session(model, steps, config)
    model.fail_at = call
    found, failures = [], 0
    for latent in latents:
        try:
            finished = session.push(latent)
        except InterruptedError:
            failures += 1
            finished = session.push(latent)
        found += finished
    while session.frames_out < len(latents):
        try:
            for frame in session.drain():
                found.append(frame)
        except InterruptedError:
            failures += 1
    assert failures == (call <= len(model.plans))
    assert torch.equal(torch.stack(found), toy.stream(toy.ToyModel(), latents, None, steps, config))


@every_config
def test_interrupted_frame_may_be_left_out(config):
    """Ending a stream after a failed push gives the frames before it, unharmed."""
    latents = toy.frames(12)
    model = toy.ToyModel()
    session = toy.session(model, 3, config)
    found = list(session.push_all(latents[:-1]))
    model.fail_at = len(model.plans) + 1
    try:
        found += session.push(latents[-1])
        expected = latents
    except InterruptedError:
        expected = latents[:-1]
    model.fail_at = None
    found += session.flush()
    assert torch.equal(torch.stack(found), toy.stream(toy.ToyModel(), expected, None, 3, config))


@every_config
def test_two_streams_never_mix(config):
    """Two streams of one model in turn, with other seeds and frames, equal each alone."""
    model = toy.ToyModel()
    clips = toy.frames(14, seed=2), toy.frames(14, seed=3)
    sessions = [toy.session(model, 3, config, seed) for seed in (1, 2)]
    found = [[], []]
    for pair in zip(*clips, strict=True):
        for which, latent in enumerate(pair):
            found[which] += sessions[which].push(latent)
    for which, clip in enumerate(clips):
        frames = torch.stack([*found[which], *sessions[which].flush()])
        assert torch.equal(frames, toy.stream(model, clip, None, 3, config, seed=which + 1))


@every_config
def test_memory_is_constant(config):
    session = toy.session(toy.ToyModel(), 4, config)
    session.push_all(toy.frames(30))
    held = session.nbytes
    assert (held > 0) == (config is not None)
    session.push_all(toy.frames(270))
    assert session.nbytes == held
    assert len(session.pipeline.in_flight) <= 4


@every_config
def test_reset_starts_over(config):
    latents = toy.frames(10)
    session = toy.session(toy.ToyModel(), 3, config)
    allocated = session.nbytes
    session.push_all(toy.frames(7, seed=5))
    session.reset()
    assert (session.frames_in, session.frames_out, session.ended) == (0, 0, False)
    assert session.nbytes == allocated and bool(allocated) == (config is not None)
    again = torch.cat([session.push_all(latents), session.flush()])
    assert torch.equal(again, toy.stream(toy.ToyModel(), latents, None, 3, config))
    session.reset()
    other_size = torch.zeros(1, 4, 5, 5)
    assert session.push_all(other_size).shape[0] + session.flush().shape[0] == 1


def test_seed_matters():
    latents = toy.frames(3)
    one, other = (toy.stream(toy.ToyModel(), latents, None, 2, None, seed) for seed in (1, 2))
    assert not torch.allclose(one, other)


def test_order():
    """Frames leave in the order they came: each is near its own, bright, input."""
    latents = torch.arange(20.0).view(20, 1, 1, 1).expand(20, 4, 2, 3) * 100
    for config in CONFIGS[:1] + CONFIGS[3:]:
        out = toy.stream(toy.ToyModel(), latents, None, 2, config)
        assert (out.mean((1, 2, 3)).diff() > 0).all(), config


@every_config
def test_depth_is_encoded_once_per_frame(config):
    seen = []

    def encode(depth):
        seen.append(depth[0, 0, 0, 0].item())
        return depth

    model = toy.ToyModel()
    model.encode_depth = encode
    session = toy.session(model, 4, config)
    latents = toy.frames(9)
    session.push_all(latents, torch.arange(9.0).view(9, 1, 1, 1).expand_as(latents))
    session.flush()
    assert seen == list(range(9))


def test_nothing_in_nothing_out():
    session = toy.session(toy.ToyModel(), 2, AttentionWindow())
    assert session.push_all(torch.empty(0, 4, 2, 3)).shape[0] == 0
    assert session.flush().shape[0] == 0


def test_ended_stream_takes_no_frame():
    session = toy.session(toy.ToyModel(), 2, None)
    session.flush()
    with pytest.raises(RuntimeError, match="drained; reset it or open a new one"):
        session.push(toy.frames(1)[0])


def test_frame_size_cannot_change():
    session = toy.session(toy.ToyModel(), 2, None)
    session.push(toy.frames(1)[0])
    with pytest.raises(ValueError, match=r"\(4, 2, 3\) latents got one of \(4, 2, 4\)"):
        session.push(torch.zeros(4, 2, 4))
    assert session.frames_in == 1


def test_depth_that_cannot_be_used():
    frame = toy.frames(1)[0]
    session = toy.session(toy.ToyModel(), 2, None)
    with pytest.raises(
        ValueError, match=r"latent is \(4, 2, 3\) but its depth latent is \(4, 2, 2\)"
    ):
        session.push(frame, frame[:, :, :2])
    assert session.frames_in == 0


@pytest.mark.parametrize("first", [True, False])
def test_depth_comes_with_every_frame_or_none(first):
    session = toy.session(toy.ToyModel(), 3, None)
    frame = toy.frames(1)[0]
    session.push(frame, frame if first else None)
    with pytest.raises(ValueError, match="every frame of a stream or with none"):
        session.push(frame, None if first else frame)
    assert session.frames_in == 1
